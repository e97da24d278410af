"""No secret may be found where it does not belong: logs, printed text, the vault's files, command lines, environments."""

import base64
import os
import secrets
import subprocess
import urllib.parse
from pathlib import Path

from process import Failure, all_processes, session_of
from repeating import Repeating

SAMPLES_PER_SECOND = 10


class Watch(Repeating):
    """Records the command lines and environments of all the run's processes, several times a second."""

    def __init__(self, run):
        super().__init__(1 / SAMPLES_PER_SECOND)
        self._run, self.seen = run, set()

    def step(self):
        """Takes one sample."""
        for pid in all_processes():
            if session_of(pid) in self._run.sessions or parent(pid) == os.getpid():
                self.seen.update(read(f"/proc/{pid}/{name}") for name in ("cmdline", "environ"))


def parent(pid):
    """The id of a process's parent; None if it has ended."""
    fields_after_name = read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return int(fields_after_name[1]) if fields_after_name else None


def read(path):
    """A file's bytes; nothing if it no longer exists."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def disguises(secret):
    """The forms in which a secret might leak, by the name of the form."""
    raw = secret.encode()
    forms = {
        "as it is": secret,
        "in hex": raw.hex(),
        "in upper hex": raw.hex().upper(),
        "as a list of numbers": ", ".join(map(str, raw)),  # how Rust's Debug shows bytes
        "percent-encoded": urllib.parse.quote(secret, safe=""),
        "percent-encoded throughout": "".join(f"%{byte:02X}" for byte in raw),
    }
    # Inside a longer text base64 looks different for each position modulo 3; the ends depend on the neighbours.
    for position in range(3):
        encoded = base64.b64encode(b"\0" * position + raw).decode()[4 if position else 0:-4]
        forms[f"in base64 at {position}"] = encoded
        forms[f"in base64url at {position}"] = encoded.replace("+", "-").replace("/", "_")
    return forms


def search(known, folder, places):
    """The places in the files where one of the secrets was found, as sentences that do not repeat it."""
    needles = {}
    for secret, what in known.items():
        for how, form in disguises(secret).items():
            needles.setdefault(form, (what, how))
    patterns = folder / f"needles-{secrets.token_hex(4)}"
    patterns.touch(0o600)
    patterns.write_text("\n".join(needles))
    found = []
    for place in places:
        done = subprocess.run(["grep", "-a", "-o", "-F", "-f", patterns, place], capture_output=True, text=True, errors="replace")
        if done.returncode > 1:
            raise Failure(f"grep: {done.stderr}")
        found += [f"{what}, {how}, in {place}" for what, how in {needles[hit] for hit in done.stdout.splitlines()}]
    patterns.unlink()
    return found


def known_secrets(world):
    """Every secret of the run, and its description."""
    tokens = {secret: "a token, code, verifier or client secret" for secret in world.server.secrets()}
    return tokens | {account.password: f"a password of {account.address}" for account in world.postkey.authorized}


def places(world, watch):
    """The files to search, including what was printed, and what was seen of processes."""
    printed, processes = world.run.folder / "printed", world.run.folder / "processes"
    printed.write_text("".join(world.postkey.printed))
    processes.write_bytes(b"\n".join(part.replace(b"\0", b"\n") for part in watch.seen))
    vault = [path for path in world.postkey.state.rglob("*") if path.is_file()]
    if not vault:
        raise Failure("there is no vault to search")
    return [world.postkey.log, printed, processes, *vault]


def the_search_finds_what_is_there(world, watch):
    canary, path = secrets.token_urlsafe(32), world.run.folder / "canary"
    for user in ("ann", "anna", "annab"):
        login = f"user={user}\x01auth=Bearer {canary}\x01\x01".encode()
        encoded = base64.b64encode(login), base64.urlsafe_b64encode(login), login.hex().encode(), str([*login]).encode()
        for leak in (login, *encoded):
            path.write_bytes(b"before " + leak + b" after")
            if not search({canary: "a canary"}, world.run.folder, [path]):
                raise Failure(f"the search does not see {leak}")


def processes_have_been_watched(world, watch):
    for what in ("postkey", "HOME=", "mbsync"):  # mbsync takes a second, so it cannot be missed
        if not any(what.encode() in part for part in watch.seen):
            raise Failure(f"the watch has not seen {what}")


def the_log_is_complete(world, watch):
    log = world.postkey.log.read_text("utf-8", "replace")
    if "DEBUG" not in log or "ann@example.test" not in log:
        raise Failure("the log does not hold what trace level shows")


def no_secret_is_found(world, watch):
    found = search(known_secrets(world), world.run.folder, places(world, watch))
    if found:
        raise Failure("found: " + "\n".join(sorted(found)))


TESTS = [the_search_finds_what_is_there, processes_have_been_watched, the_log_is_complete, no_secret_is_found]
