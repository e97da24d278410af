"""Programs for the command line that do one thing and end."""

from case import contents, version
from clients import same_body
from program import Fetch, Program, Send
from terminal import MUTT, NEOMUTT


def getmail(case, settings):
    for part in ("cur", "new", "tmp"):
        case.make(case.folder / "Mail" / "inbox" / part)
    lines = []
    for line in settings.splitlines():
        lines.append(f"path = {case.folder}/Mail/inbox/" if line.startswith("path = ") else line)
    case.file(".config/getmail/getmailrc", "\n".join([*lines, "received = false", "delivered_to = false"]) + "\n")
    case.run("getmail", "--quiet")
    return contents(case.folder / "Mail" / "inbox")


def below_getmails_fields(arrived, message):
    """getmail adds the sender of the envelope, and where the mail was."""
    own = (b"Return-Path:", b"X-getmail-retrieved-from-mailbox:")
    return b"".join(line for line in arrived.splitlines(keepends=True) if not line.startswith(own)) == message.content


def getmail_imap(case):
    return getmail(case, case.settings("getmail"))


def getmail_pop3(case):
    tls = "SSL" if case.security == "tls" else ""
    return getmail(case, f"""[retriever]
type = SimplePOP3{tls}Retriever
server = {case.host}
port = {case.port("pop3")}
username = {case.account.address}
password = {case.account.password}

[destination]
type = Maildir
path = ~/Mail/inbox/

[options]
""")


def offlineimap_settings(case):
    authority = case.world.certificates / "ca.pem"
    return case.settings("offlineimap").replace("OS-DEFAULT", str(authority))


def offlineimap(case):
    case.make(case.folder / "Mail")
    rc = case.file(".offlineimaprc", offlineimap_settings(case) + "folderfilter = lambda name: name == 'INBOX'\n")
    case.run("offlineimap", "-o", "-u", "quiet", "-c", rc)
    return contents(next((case.folder / "Mail").glob("*/INBOX"), case.folder / "none"))


def mutt_rc(case, *more):
    """The block for ~/.muttrc, and what makes mutt do its work without a person."""
    quiet = ["set copy=no", "set charset=utf-8", "set send_charset=utf-8", "set use_envelope_from=yes", "set sleep_time=0",
             "set header_cache=", "set ssl_ca_certificates_file=/etc/ssl/certs/ca-certificates.crt"]
    return case.file(".muttrc", "\n".join([case.settings("mutt"), *quiet, *more]) + "\n")


def mutt_fetch(program):
    def fetch(case):
        rc = mutt_rc(case, "set wait_key=no", "set pipe_decode=no", "set quit=yes",
                     f'push "<pipe-message>cat > {case.folder}/fetched<enter><quit>"')
        case.run("script", "--quiet", "--return", "--command", f"{program} -F {rc}", "/dev/null")
        return case.got().replace(b"\n", b"\r\n")

    return fetch


def mutt_send(program):
    def send(case, message):
        rc = mutt_rc(case)
        case.run(program, "-F", rc, "-s", "from mutt", "--", case.account.address, stdin=message.body.replace(b"\r\n", b"\n"))

    return send


def s_nail_send(case, message):
    # For root, s-nail reads only the file of the home that the system knows.
    rc = case.file(".mailrc", case.settings("s-nail"))
    case.run("s-nail", "-X", f"source {rc}", "-S", "ttycharset=utf-8", "-S", "tls-ca-dir=/etc/ssl/certs", "-S", "tls-verify=strict",
             "-s", "from s-nail", case.account.address, stdin=message.body.replace(b"\r\n", b"\n"))


def git_send_email(case, message):
    case.file(".gitconfig", case.settings("git-send-email") + f"[user]\n\tname = Ann\n\temail = {case.account.address}\n")
    patch = case.file("0001.patch", "")
    header, _, body = message.lf.partition(b"\n\n")
    kept = [line for line in header.split(b"\n") if line.startswith((b"From:", b"Subject:", b"MIME-", b"Content-"))]
    patch.write_bytes(b"From 0000 Mon Sep 17 00:00:00 2001\n" + b"\n".join(kept) + b"\n\n" + body)
    case.run("git", "send-email", "--quiet", "--suppress-cc=all", "--transfer-encoding=8bit", "--no-validate", "--confirm=never",
             "--to", case.account.address, patch)


PROGRAMS = [
    Program("getmail", lambda: version("getmail6"), [Fetch("imap", getmail_imap, below_getmails_fields), Fetch("pop3", getmail_pop3, below_getmails_fields)],
            securities=("none", "tls"), remarks={"starttls": "has no STARTTLS"}),
    Program("OfflineIMAP", lambda: version("offlineimap3"), [Fetch("imap", offlineimap)]),
    Program("mutt", lambda: version("mutt"), [Fetch("imap", mutt_fetch("mutt"), mistypes=False), Send("smtp", mutt_send("mutt"), same_body)], MUTT),
    Program("NeoMutt", lambda: version("neomutt"), [Fetch("imap", mutt_fetch("neomutt"), mistypes=False), Send("smtp", mutt_send("neomutt"), same_body)], NEOMUTT),
    Program("s-nail", lambda: version("s-nail"), [Send("smtp", s_nail_send, same_body)]),
    Program("git send-email", lambda: version("git"), [Send("smtp", git_send_email, same_body)]),
]
