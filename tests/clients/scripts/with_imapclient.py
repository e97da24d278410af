"""IMAPClient: `with_imapclient.py fetch|append|stay FILE`."""

import os
import ssl
import sys

from imapclient import IMAPClient

action, file = sys.argv[1:]
security = os.environ["SECURITY"]


def log_in():
    client = IMAPClient(os.environ["SERVER"], int(os.environ["PORT"]), ssl=security == "tls")
    if security == "starttls":
        client.starttls(ssl.create_default_context())
    client.login(os.environ["LOGIN"], os.environ["PASSWORD"])
    client.select_folder("INBOX")
    return client


def content(client, number):
    return client.fetch([number], ["BODY.PEEK[]"])[number][b"BODY[]"]


client = log_in()
if action == "fetch":
    with open(file, "wb") as sink:
        sink.write(content(client, client.search()[0]))
elif action == "append":
    with open(file, "rb") as source:
        client.append("INBOX", source.read())
else:
    seen = set(client.search())
    client.idle()
    print("ready", flush=True)
    while True:
        client.idle_check()
        client.idle_done()
        for number in set(client.search()) - seen:
            seen.add(number)
            print("new", content(client, number), flush=True)
        client.idle()
client.logout()
