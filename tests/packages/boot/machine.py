"""A Debian that boots in a container with its own systemd as PID 1.

It has its own processes, users and files, and shares the network with the tests: so the mail servers and mail programs of the tests
are on its loopback.
"""

import os
import subprocess
from pathlib import Path

from process import Failure, wait_until

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}


HIERARCHIES = {"memory": "memory", "name=systemd": "systemd", "": "unified"}


def groups_of(process):
    """The folders of a process's control groups, as far as systemd uses them. With version 2 there is only one."""
    for line in Path(f"/proc/{process}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        root = Path("/sys/fs/cgroup", HIERARCHIES.get(controllers, controllers))
        if not controllers and not root.is_dir():
            root = root.parent
        if controllers in HIERARCHIES and root.is_dir():
            yield Path(f"{root}{path}")


def in_groups(folders, command):
    """The command, run in these control groups."""
    enter = "".join(f"echo $$ > {folder}/cgroup.procs && " for folder in folders)
    return ["sh", "-c", f'{enter} exec "$@"', "sh", *command]


class ControlGroups:
    """Control groups of the container's own, because nspawn makes none without systemd on the host; with it, a scope."""

    def __init__(self):
        self._folders = []
        if not Path("/run/systemd/system").exists():
            self._folders = [folder / f"postkey-{os.getpid()}" for folder in groups_of("self")]
        for folder in self._folders:
            folder.mkdir(exist_ok=True)

    def wrap(self, command):
        """The command, run in the groups."""
        if not self._folders:
            return ["systemd-run", "--quiet", "--scope", "--property=Delegate=yes", *command]
        return in_groups(self._folders, command)

    def remove(self):
        """For when the container has ended, because its systemd leaves groups behind."""
        for folder in self._folders:
            subprocess.run(["find", folder, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";"], check=True)


class Machine:
    """`root` is the folder of its files."""

    def __init__(self, run, root):
        self._run, self.root = run, root
        self._container = None

    def boot(self):
        """Returns when everything that starts by itself has started."""
        command = ["systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--console=pipe", "--machine=postkey",
                   "--system-call-filter=landlock_create_ruleset landlock_add_rule landlock_restrict_self",
                   f"--directory={self.root}"]
        self._groups = ControlGroups()
        self._container = self._run.start("machine", self._groups.wrap(command), stdin=subprocess.PIPE)
        wait_until(self._is_reachable, "systemd", 30)
        state = self.execute("systemctl", "is-system-running", "--wait", code=None).strip()
        if state not in ("running", "degraded"):
            raise Failure(f"the system is {state}:\n{self._container.last_lines()}")

    def is_up(self):
        """Whether it has been booted and has not been shut down."""
        return self._container is not None and self._container.child.poll() is None

    def power_off(self):
        """Shuts down, as at the power button."""
        self.execute("systemctl", "poweroff", "--no-block")
        wait_until(lambda: self._container.child.poll() is not None, "the end of the container", 30)
        self._run.stop(self._container)
        self._groups.remove()

    def execute(self, *command, user=None, code=0, stdin=None, timeout=120):
        """Runs a command as root or another user, and returns what it prints. Fails unless it ends with `code`, if there is one."""
        done = subprocess.run(self.inside(*command, user=user), env=ENVIRONMENT, input=stdin, timeout=timeout, text=True,
                              stdin=subprocess.DEVNULL if stdin is None else None,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if code is not None and done.returncode != code:
            raise Failure(f"{' '.join(map(str, command))}: exit code {done.returncode}, not {code}\n{done.stdout}")
        return done.stdout

    def inside(self, *command, user=None):
        """The command that runs a command in the container."""
        if user:
            uid = self.uid(user)
            command = ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--init-groups", "env", f"HOME=/home/{user}",
                       f"XDG_RUNTIME_DIR=/run/user/{uid}", *command)
        leader = self._leader()
        # logind does not listen to a process that is in no control group of its machine.
        return in_groups(groups_of(leader), ["nsenter", f"--target={leader}", "--mount", "--uts", "--ipc", "--pid", "--cgroup",
                                             "--root", "--wd", "--", *command])

    def uid(self, user):
        """A user's number; None if there is no such user."""
        for line in (self.root / "etc/passwd").read_text().splitlines():
            name, _, uid, *_ = line.split(":")
            if name == user:
                return int(uid)
        return None

    def write(self, path, text, mode=0o644):
        """Writes a file, and makes its folder."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def read(self, path):
        """What a file contains."""
        return (self.root / path.lstrip("/")).read_text()

    def has(self, path):
        """Whether there is such a file."""
        return self.execute("find", path, "-maxdepth", "0", code=None).strip() == path

    def read_process(self, pid, name):
        """A file in /proc of a process inside."""
        return self.execute("cat", f"/proc/{pid}/{name}")

    def property(self, unit, name, user=None):
        """What systemd knows of a unit."""
        scope = ("--user",) if user else ()
        return self.execute("systemctl", *scope, "show", f"--property={name}", "--value", unit, user=user).strip()

    def wait_for_property(self, unit, name, value, seconds=20.0, user=None):
        """Returns when a unit's property has this value."""
        wait_until(lambda: self.property(unit, name, user) == value, f"{name}={value} of {unit}", seconds)

    def is_enabled(self, unit):
        """Whether a unit starts at boot."""
        return self.execute("systemctl", "is-enabled", unit, code=None).strip() == "enabled"

    def status(self, unit, code=0):
        """What `systemctl status` shows, once the journal has everything."""
        self.execute("journalctl", "--sync", "--quiet")
        return self.execute("systemctl", "status", "--no-pager", "--lines=20", unit, code=code)

    def journal(self, *options):
        """What the journal says, in its usual form."""
        self.execute("journalctl", "--sync", "--quiet")
        return self.execute("journalctl", "--no-pager", "--quiet", *options, code=None)

    def delegate_memory(self):
        """Lets systemd limit memory. With version 1 of control groups, nspawn mounts the controller read-only."""
        if self.has("/sys/fs/cgroup/memory"):
            self.execute("mount", "--options", "remount,bind,rw", "/sys/fs/cgroup/memory")
            self.execute("systemctl", "daemon-reexec")

    def _is_reachable(self):
        if self._container.child.poll() is not None:
            raise Failure(f"the container has ended:\n{self._container.last_lines()}")
        return self._leader() and subprocess.run(
            self.inside("test", "-S", "/run/systemd/private"), env=ENVIRONMENT, stderr=subprocess.DEVNULL
        ).returncode == 0

    def _leader(self):
        """The process outside that is PID 1 inside; None as long as there is none."""
        pid = self._container.child.pid
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            children = file.read().split()
        return int(children[-1]) if children else None
