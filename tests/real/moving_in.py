"""Moving in: email-oauth2-proxy is authorized and serves mail; then postkey takes its place, and no mail program notices."""

import imaplib
import secrets

from clients import CLIENTS, client_test
from davmail import write_properties
from emailproxy import Emailproxy
from life import expect, login
from mutt_oauth2 import MuttOauth2
from person import Person
from postkey import HEAD, LISTENER, PROVIDERS, Account, Listener, Postkey, provider
from process import write_private

GUS, HAL, IDA, KIM, SECRET = (f"{name}@example.test" for name in ("gus", "hal", "ida", "kim", "secret"))

LASTING = "client_id = lasting"  # it gets refresh tokens without prompt=consent, which the other program cannot send

# One of each protocol by curl, and each protocol by another program.
SAME_CLIENTS = [("curl", "imap"), ("curl", "pop3"), ("curl, AUTH PLAIN", "smtp"), ("imaplib, LOGIN", "imap"), ("fetchmail", "pop3"),
                ("msmtp, AUTH PLAIN", "smtp")]


class House:
    """What the tests of this file hand on to each other."""

    def __init__(self, world):
        self.gus = Account(GUS, secrets.token_urlsafe(16))
        self.hal = Account(HAL, secrets.token_urlsafe(16))
        self.old = Emailproxy(world, "emailproxy", {GUS: LASTING, IDA: LASTING})
        self.new = Postkey(world.run, world.postkey.binary, lambda folder: f'state_dir = "{folder}/state"\nlog = "debug"\n',
                           listeners=3, name="moved-in", env={"SSL_CERT_FILE": str(world.run.ca)})
        secret = f"client_secret = {world.server.client_secret}"
        self.cached = Emailproxy(world, "emailproxy-cache", {
            HAL: LASTING,
            KIM: f"client_id = lasting-secret\n{secret}",
            SECRET: f"oauth2_flow = client_credentials\nclient_id = service-secret\n{secret}",
        }, has_cache=True)
        self.kim, self.secret = (Account(address, secrets.token_urlsafe(16)) for address in (KIM, SECRET))


def house(world):
    """Made by the first test that needs it."""
    if not hasattr(world, "house"):
        world.house = House(world)
    return world.house


def imap_login(port, account):
    """A login that is undone at once."""
    imap = imaplib.IMAP4("127.0.0.1", port, timeout=60)
    imap.login(account.address, account.password)
    imap.logout()
    return True


def use_all_clients(world, proxy, account, folder):
    """Sends and fetches with the same settings as ever."""
    for number, (name, protocol) in enumerate(SAME_CLIENTS):
        client = next(client for client in CLIENTS if (client.name, client.protocol) == (name, protocol))
        client_test(world, client, Listener(protocol, "none", proxy.ports[protocol]), account, f"{folder}/{number}")


def consents(world):
    """How often somebody has signed in."""
    return world.server.counts()["authorization_code"]


def content(proxy):
    """The bytes of its files."""
    return [open(path, "rb").read() for path in proxy.files]


def refused(world, house, code, words, *arguments, line=None):
    """An import that must fail like this, and change nothing."""
    before = content(house.old), house.new.configuration.read_bytes(), world.server.counts()
    printed = house.new.command("import", *arguments, line=line, code=code)
    expect(words in printed, f"it says {words!r}:\n{printed}")
    expect((content(house.old), house.new.configuration.read_bytes(), world.server.counts()) == before, "nothing changed")
    expect(not house.new.status()["accounts"], "there is no account")


def the_other_program_is_authorized_and_serves_three_clients(world):
    home, before = house(world), consents(world)
    home.old.start()
    home.old.sign_in(lambda: imap_login(home.old.ports["imap"], home.gus))
    expect(consents(world) == before + 1, "Gus has signed in once")
    use_all_clients(world, home.old, home.gus, "emailproxy-clients")


def a_dry_run_shows_everything_and_changes_nothing(world):
    home = house(world)
    before = content(home.old), home.new.configuration.read_bytes(), world.server.counts()
    printed = home.new.command("import", *home.old.files, "--keep-ports", "--dry-run")
    for words in (GUS, "nobody has to sign in again", f"postkey authorize {IDA}", "[provider.example-test]",
                  f'address = ["127.0.0.1:{home.old.ports["imap"]}"]', 'security = "starttls"'):
        expect(words in printed, f"it shows {words!r}:\n{printed}")
    expect(not home.new.state.exists(), "no vault has been made")
    expect((content(home.old), home.new.configuration.read_bytes(), world.server.counts()) == before, "nothing changed")


def wrong_passwords_and_damaged_files_change_nothing(world):
    home = house(world)
    home.old.stop()
    import_old = [*home.old.files, "--keep-ports"]
    refused(world, home, 64, "add `--yes`", *import_old, line=home.gus.password)
    refused(world, home, 77, "does not open its tokens", *import_old, "--yes", line="not the password")
    refused(world, home, 78, "[provider.example-test]", *home.old.files, "--yes", line=home.gus.password)
    text = home.old.config.read_text()
    damaged = home.old.folder / "damaged.config"
    for find, replace, code, words in (("token_salt = ", "token_salt = ?", 65, "token_salt is damaged"),
                                       ("refresh_token = g", "refresh_token = ?", 65, "not in the form of Fernet"),
                                       ("refresh_token = gA", "refresh_token = gB", 77, "does not open its tokens"),
                                       ("[emailproxy]", "emailproxy", 65, "none of the files"),
                                       ("use_pkce = True", "use_pkce", 65, "is damaged")):
        expect(find in text, f"{find!r} is in its file")
        damaged.write_text(text.replace(find, replace, 1))
        refused(world, home, code, words, str(damaged), "--keep-ports", "--yes", line=home.gus.password)


def one_command_moves_in_and_no_client_notices(world):
    home, before, files = house(world), consents(world), content(house(world).old)
    printed = home.new.command("import", *home.old.files, "--keep-ports", "--yes", line=home.gus.password)
    for protocol in ("IMAP", "POP3", "SMTP"):
        expect(any(line.split()[:1] == [protocol] and line.endswith(" ok") for line in printed.splitlines()), f"{protocol}: {printed}")
    expect(home.gus.password not in printed, "no password is shown")
    home.new.start()
    use_all_clients(world, home.old, home.gus, "moved-in-clients")
    world.server.revoke_access_tokens()
    use_all_clients(world, home.old, home.gus, "moved-in-clients-later")
    expect(consents(world) == before, "nobody has signed in again")
    expect(content(home.old) == files, "its files are as they were")
    again = home.new.command("import", *home.old.files, "--yes", line=home.gus.password, code=65)
    expect("is already in postkey" in again, f"an account is imported once: {again}")


def its_cache_store_is_taken_over_after_a_new_password(world):
    home, first = house(world), Account(HAL, secrets.token_urlsafe(16))
    port, everybody = home.cached.ports["imap"], (home.hal, home.kim, home.secret)
    home.cached.start()
    for account in (first, home.kim):
        home.cached.sign_in(lambda: imap_login(port, account))
    imap_login(port, home.secret)
    home.cached.restart_with_another_redirect()
    home.cached.sign_in(lambda: imap_login(port, home.hal))
    expect("client_secret_encrypted" in home.cached.cache.read_text(), "Kim's client secret is encrypted, too")
    alone = home.new.command("import", home.cached.files[1], "--yes", code=65)
    expect("emailproxy.config as well" in alone, f"the tokens alone are not enough: {alone}")
    files = [f"--password-file={account.address}={write_private(home.new.folder / account.address, account.password)}" for account in everybody]
    command = ["import", *home.cached.files, "--keep-ports", "--yes"]
    busy = home.new.command(*command, *files, code=71)
    expect("stop the other program first" in busy, f"its ports are in use: {busy}")
    home.cached.stop()
    before, content_before = consents(world), content(home.cached)
    mixed = home.new.command(*command, *files[1:], line=first.password, code=77)
    expect(f"{HAL}: this password does not open its tokens" in mixed, f"only Hal's failed: {mixed}")
    home.new.command("import", *home.cached.files, "--yes", *files)
    for account in everybody:
        imap_login(port, account)
    use_all_clients(world, home.cached, home.hal, "cached-clients")
    expect(consents(world) == before and content(home.cached) == content_before, "nobody has signed in again; its files are as they were")
    home.new.stop()


def a_token_file_of_sasl_xoauth2_is_taken_over(world):
    """Its format, and a real refresh token; the provider is found by its endpoint."""
    address = "joy@example.test"
    tokens = {"access_token": "", "client_id": "native", "client_secret": "", "expiry": "0", "user": address,
              "refresh_token": world.tokens.authorize(address)["refresh_token"], "token_endpoint": f"{world.server.issuer}/token"}
    file, before = world.run.write_json("joy.tokens", tokens), consents(world)
    account = world.postkey.import_alone(address, str(file), "--yes")
    login(world, account).logout()
    expect(consents(world) == before, "nobody has signed in again")


def an_encrypted_token_file_of_mutt_oauth2_is_taken_over(world):
    """The script is authorized, and its user's own gpg opens its file."""
    address = "mia@example.test"
    with MuttOauth2(world, address, "lasting") as script:
        script.sign_in(Person(address, world.run.ca))
        expect(script.access_token(), "it has a token for mutt")
        before, content = consents(world), script.token_file.read_bytes()
        shut = world.postkey.command("import", str(script.token_file), "--yes", code=65)
        expect("--decrypt-command" in shut, f"it says what to add: {shut}")
        account = world.postkey.import_alone(address, str(script.token_file), "--decrypt-command", script.decrypt_command, "--yes")
        login(world, account).logout()
        world.server.revoke_access_tokens()
        login(world, account).logout()
        expect(consents(world) == before, "nobody has signed in again")
        expect(script.token_file.read_bytes() == content, "its file is as it was")


def the_properties_of_davmail_are_taken_over(world):
    """Its own classes encrypt a real refresh token, with the password that mail programs keep."""
    address, password = "dan@example.test", secrets.token_urlsafe(16)
    file = world.run.subfolder("davmail") / "davmail.properties"
    write_properties(file, address, password, world.tokens.authorize(address)["refresh_token"], mode="O365Modern", oauth_clientId="native",
                     loginUrl=world.server.issuer)
    # Under Microsoft's paths there is no issuer whose id_token could be verified, so none is requested.
    text = LISTENER.format(protocol="imap", security="none") + provider(world, **PROVIDERS[1]).replace('"openid", "email", ', "")
    new = Postkey(world.run, world.postkey.binary, lambda folder: HEAD.format(folder=folder) + text, listeners=1, name="from-davmail",
                  env={"SSL_CERT_FILE": str(world.run.ca)})
    before, content = consents(world), file.read_bytes()
    refused = new.command("import", str(file), "--write", "--yes", line="not the password", code=77)
    expect("does not open its tokens" in refused, f"it says why: {refused}")
    new.command("import", str(file), "--write", "--yes", line=password)
    new.start()
    imap_login(new.listeners()["imap", "none"].port, Account(address, password))
    new.stop()
    expect(consents(world) == before, "nobody has signed in again")
    expect(file.read_bytes() == content, "its file is as it was")


TESTS = [
    the_other_program_is_authorized_and_serves_three_clients, a_dry_run_shows_everything_and_changes_nothing,
    wrong_passwords_and_damaged_files_change_nothing, one_command_moves_in_and_no_client_notices,
    its_cache_store_is_taken_over_after_a_new_password, a_token_file_of_sasl_xoauth2_is_taken_over,
    an_encrypted_token_file_of_mutt_oauth2_is_taken_over, the_properties_of_davmail_are_taken_over,
]
