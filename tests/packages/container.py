"""Carries out the steps of the Containerfile's last stage in a clean Debian, and runs the result as PID 1. No image is built.

Arguments: the clean Debian's folder, and the program that the first stage would have built.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

PROGRAM = "/source/target/release/postkey"


def instructions():
    """The instructions of the last stage: name and rest."""
    with open("Containerfile", encoding="utf-8") as file:
        text = file.read()
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    parsed = [line.split(None, 1) for line in joined.splitlines()]
    last = max(index for index, (name, _) in enumerate(parsed) if name == "FROM")
    check_sources([rest for name, rest in parsed if name == "COPY"])
    return parsed[last + 1 :]


def check_sources(copies):
    for words in map(str.split, copies):
        for source in words[:-1]:
            known = source == PROGRAM or source.startswith("--from=") or os.path.exists(source)
            assert known, f"the Containerfile copies {source}, which is not there"


class Container:
    """The clean Debian after the steps, and how the image is run."""

    def __init__(self, root, program):
        self.root, self.environment = root, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        self.user = self.entrypoint = self.volume = None
        for name, rest in instructions():
            match name:
                case "RUN":
                    subprocess.run(["chroot", root, "sh", "-c", rest], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                case "COPY":
                    source, target = rest.split()[-2:]
                    os.makedirs(os.path.dirname(root + target), exist_ok=True)
                    shutil.copy(program if source == PROGRAM else source, root + target)
                case "ENV":
                    self.environment.update(pair.split("=", 1) for pair in rest.split())
                case "USER":
                    self.user = rest
                case "VOLUME":
                    self.volume = rest
                case "ENTRYPOINT":
                    self.entrypoint = json.loads(rest)
                case _:
                    raise AssertionError(f"{name} is not understood here")

    def command(self, *command):
        return ["chroot", "--userspec=" + self.user, self.root, "env", "-i"] + [
            f"{name}={value}" for name, value in self.environment.items()
        ] + list(command)

    def start(self):
        """PID 1 of a namespace. The returned process is its parent outside."""
        return subprocess.Popen(["unshare", "--pid", "--fork"] + self.command(*self.entrypoint), stderr=subprocess.PIPE)

    def execute(self, pid, *command, **options):
        return subprocess.run(
            ["nsenter", f"--target={pid}", "--pid"] + self.command(*command), capture_output=True, text=True, **options
        )


def child_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return int(file.read().split()[0])


def wait_until_it_serves(process):
    for line in process.stderr:
        if b"listening" in line:
            return
    raise AssertionError("the daemon has ended")


def check(container):
    assert container.user.split(":")[0] not in ("0", "root"), "the daemon would be root"
    state = os.stat(container.root + container.volume)
    assert state.st_mode & 0o077 == 0 and f"{state.st_uid}:{state.st_gid}" == container.user, "the volume is not the daemon's own"
    outside = container.start()
    wait_until_it_serves(outside)
    daemon = child_of(outside.pid)
    try:
        with open(f"/proc/{daemon}/status", encoding="ascii") as file:
            status = file.read()
        assert re.search(r"^NSpid:.*\t1$", status, re.M), "the daemon is not PID 1"
        assert re.search(r"^Name:\tpostkey$", status, re.M), "PID 1 is not postkey"
        check_commands(container, daemon)
        os.kill(daemon, signal.SIGTERM)
        assert outside.wait(timeout=10) == 0, "the daemon has not ended well"
    finally:
        # Without its PID 1 the whole namespace ends.
        if outside.poll() is None:
            os.kill(daemon, signal.SIGKILL)
        outside.stderr.close()


def check_commands(container, daemon):
    """Commands by `exec` reach the daemon. An authorization shows its page, accepts what is pasted, and waits as long as requested."""
    told = container.execute(daemon, "postkey", "status", check=True).stdout
    assert "127.0.0.1:1143" in told, told
    authorize = ["postkey", "authorize", "ann@gmail.com", "--client-id", "id", "--timeout", "2s"]
    result = container.execute(daemon, *authorize, input="http://127.0.0.1/?state=wrong&code=1\n")
    assert "https://accounts.google.com/" in result.stdout, result
    assert result.returncode == 77, result
    assert len(result.stderr.splitlines()) == 2, result


if __name__ == "__main__":
    check(Container(*sys.argv[1:]))
