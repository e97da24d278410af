"""One program on one listener with one account, and how to run it: as a user without rights, on a machine of its own mounts."""

import os
import pwd
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from postkey import Account
from process import Failure, write_private
from world import World

# Where programs find what `install` has put into target/clients, and the scripts. Their user cannot enter everybody's folders.
INSTALLED, SCRIPTS = Path("/mnt"), Path("/media")
HERE = Path(__file__).parent
TARGET = HERE.parents[1] / "target" / "clients"

USER = pwd.getpwnam("nobody")

# Mounts are private to the program: the machine trusts postkey's certificate authority, and no other.
INSIDE = (
    f'mount --bind "$1" /etc/ssl/certs && mount --bind "$2" {INSTALLED} && mount --bind "$3" {SCRIPTS} && cd "$4" && shift 4 && '
    f'exec setpriv --reuid {USER.pw_uid} --regid {USER.pw_gid} --clear-groups "$@"'
)


@dataclass(frozen=True)
class Case:
    """`folder` is the home of the program."""

    world: World
    security: str
    account: Account
    folder: Path

    host = "127.0.0.1"

    def port(self, protocol):
        """The local port."""
        return self.world.local[protocol, self.security]

    def settings(self, program):
        """What `postkey settings` shows for a program."""
        return self.world.settings(self.account, program, self.security)

    def mistyped(self):
        """The same with another account's password, and another home. Made-up passwords would soon have to wait."""
        folder = new_home(self.folder / "mistyped")
        return replace(self, account=Account(self.account.address, self.world.stranger.password), folder=folder)

    def moved(self):
        """The same in a new home."""
        return replace(self, folder=new_home(self.folder.with_name(self.folder.name + "+")))

    def file(self, name, text):
        """A file in the program's home that nobody else may read."""
        path = self.folder / name
        self.make(path.parent)
        return owned(write_private(path, text))

    def make(self, folder):
        """A folder in the home, and those above it."""
        if not folder.is_dir():
            self.make(folder.parent)
            new_home(folder)
        return folder

    @property
    def environment(self):
        """Nothing of the tester's own, so that no certificate and no setting of theirs counts."""
        return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(self.folder), "LANG": "C.UTF-8", "TERM": "xterm-256color"}

    def details(self, protocol):
        """What a script needs to know that does not contain a settings block."""
        return {"SERVER": self.host, "PORT": str(self.port(protocol)), "SECURITY": self.security,
                "LOGIN": self.account.address, "PASSWORD": self.account.password}

    def inside(self, command):
        """The command as the program's user runs it."""
        mounts = (self.world.certificates, TARGET, HERE / "scripts", self.folder)
        return ["unshare", "--mount", "sh", "-c", INSIDE, "-", *map(str, mounts), *map(str, command)]

    def run(self, *command, env=None, stdin=b"", timeout=90):
        """Runs a program to its end and returns what it prints."""
        try:
            done = subprocess.run(self.inside(command), env=self.environment | (env or {}), capture_output=True,
                                  timeout=timeout, input=stdin)
        except subprocess.TimeoutExpired as expired:
            raise Failure(f"{command[0]} has not ended after {timeout} s:\n{(expired.output or b'')[-2000:].decode()}") from None
        if done.returncode != 0:
            printed = (done.stdout[-3000:] + done.stderr[-3000:]).decode("utf-8", "replace")
            raise Failure(f"{command[0]} ends with {done.returncode}:\n{printed}")
        return done.stdout

    def start(self, name, *command, env=None):
        """Starts a program that stays."""
        return self.world.run.start(f"{self.folder.name}-{name}", self.inside(command), env=self.environment | (env or {}))

    def put(self, message):
        """Writes the message where a script finds it."""
        path = self.folder / "message"
        path.write_bytes(message.content)
        return owned(path)

    def got(self):
        """What a script has fetched."""
        path = self.folder / "fetched"
        return path.read_bytes() if path.exists() else b""


def owned(path):
    """Gives a file or folder to the programs' user."""
    os.chown(path, USER.pw_uid, USER.pw_gid)
    return path


def new_home(folder):
    """A folder that belongs to the programs' user."""
    folder.mkdir()
    return owned(folder)


def version(package):
    """The version of a Debian package, without Debian's own numbers."""
    done = subprocess.run(["dpkg-query", "--show", "--showformat=${Version}", package], capture_output=True, text=True)
    if done.returncode != 0:
        raise Failure(f"{package} is not installed")
    return done.stdout.rpartition("-")[0].split(":")[-1] or done.stdout


def contents(maildir):
    """All messages of a Maildir, one after the other, with CRLF."""
    found = [path.read_bytes() for part in ("new", "cur") if (maildir / part).is_dir() for path in (maildir / part).iterdir()]
    return b"".join(found).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
