"""Builds the image of the Containerfile with podman, and runs it as strictly as an orchestrator may: as a user without privileges, on a
read-only file system, without capabilities.

    python3 image.py --clean TAR --program PATH --folder FOLDER

The base images are not downloaded: that of the last stage is the clean Debian, and in that of the first one `cargo` brings the program
that was built before. Images and containers are in the folder, which is removed at the end, and before if a run was killed.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

BASE, BUILDER, IMAGE = "docker.io/library/debian:bookworm-slim", "docker.io/library/rust:1.95-bookworm", "postkey"

# What stands for the compiler.
CARGO = """#!/bin/sh
[ "$*" = 'build --release --locked --bin postkey' ] && [ -f Cargo.lock ] && [ -d src ] && [ -f config/providers.toml ] || exit 1
mkdir -p target/release && cp /program target/release/postkey
"""

STRICT = ["--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt=no-new-privileges", "--network=none",
          "--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000"]

# As in packaging/kubernetes: one listener for other machines, with a certificate from a volume.
CLUSTER = """
[provider.google]
client_id = "an id"
client_secret = { file = "client.secret" }

[[listener]]
protocol = "imap"
address = "0.0.0.0:1993"
security = "tls"
certificate = "tls/tls.crt"
key = "tls/tls.key"
allow_remote = true
"""


class Podman:
    """podman with its storage in one folder."""

    def __init__(self, folder):
        self.folder = folder
        self._options = [f"--root={folder}/storage", f"--runroot={folder}/run", "--cgroup-manager=cgroupfs", "--runtime=runc"]

    def __call__(self, *arguments, code=0, **options):
        """Runs a command, and returns what it prints. Fails unless it ends with this code."""
        done = subprocess.run(["podman", *self._options, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=300, **options)
        assert code is None or done.returncode == code, f"podman {' '.join(arguments)}: {done.returncode}\n{done.stdout}"
        return done.stdout

    def script(self):
        """A program that is podman with this storage."""
        script = self.folder / "podman"
        script.write_text(f'#!/bin/sh\nexec podman {" ".join(self._options)} "$@"\n')
        script.chmod(0o755)
        return script

    def remove(self):
        """Removes the folder with all containers and images. What ends a container may still write there, so it may take two tries."""
        for _ in range(5):
            if self.folder.exists():
                self("rm", "--all", "--force", "--time=1", code=None)
                self._unmount()
                shutil.rmtree(self.folder, ignore_errors=True)
        assert not self.folder.exists(), f"{self.folder} cannot be removed"

    def _unmount(self):
        """podman mounts the folder of its layers onto itself, and leaves more if a build was killed."""
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text("utf-8").splitlines()]
        for mount in reversed([mount for mount in mounts if mount.startswith(f"{self.folder}/")]):
            subprocess.run(["umount", "--lazy", mount], check=False)


def build(podman, clean, program):
    """Builds the image from the project's folder."""
    podman("import", "--quiet", str(clean), BASE)
    builder = podman.folder / "builder"
    builder.mkdir()
    (builder / "cargo").write_text(CARGO)
    (builder / "cargo").chmod(0o755)
    shutil.copy(program, builder / "program")
    (builder / "Containerfile").write_text(f"FROM {BASE}\nCOPY program /program\nCOPY cargo /usr/bin/cargo\n")
    podman("build", "--pull-never", "--tag", BUILDER, str(builder))
    podman("build", "--pull-never", "--format=docker", "--network=host", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000",
           "--tag", IMAGE, ".")


def check_image(podman):
    """What the image says of itself."""
    image = json.loads(podman("image", "inspect", IMAGE))[0]
    config = image["Config"]
    assert config["User"] == "990:990", f"the daemon would be {config['User']}"
    assert list(config["Volumes"]) == ["/var/lib/postkey"], config["Volumes"]
    kind, program, *check = image["Healthcheck"]["Test"]
    assert (kind, program) == ("CMD", "postkey"), "the health check needs no shell"
    assert "no daemon" in podman("run", "--rm", *STRICT, IMAGE, *check, code=69), "without a daemon it fails"
    base = json.loads(podman("image", "inspect", BASE))[0]["Size"]
    print(f"   the image adds {(image['Size'] - base) / 1e6:.0f} MB to its base")


def serves(podman, name):
    """Waits until a container is healthy."""
    for _ in range(100):
        try:
            podman("healthcheck", "run", name)
            return
        except AssertionError:
            time.sleep(0.1)
    raise AssertionError(f"{name} does not serve:\n{podman('logs', name)}")


def check_confinement(podman, name):
    """What the daemon cannot do."""
    status = podman("exec", name, "cat", "/proc/1/status")
    for line in (r"Name:\tpostkey", r"Uid:\t990\t990\t990\t990", r"CapEff:\t0+", r"CapBnd:\t0+", r"NoNewPrivs:\t1"):
        assert re.search(f"^{line}$", status, re.M), f"{line} is not in\n{status}"
    said = podman("exec", name, "sh", "-c", "echo > /etc/x", code=None)
    assert "Read-only file system" in said, said


def check_commands(podman, name):
    """Commands by `exec` reach the daemon. An authorization shows its page, accepts what is pasted, and waits as long as requested."""
    told = podman("exec", name, "postkey", "status")
    assert "127.0.0.1:1143" in told, told
    authorize = ["postkey", "authorize", "ann@gmail.com", "--client-id", "id", "--timeout", "2s"]
    said = podman("exec", "--interactive", name, *authorize, code=77, input="http://127.0.0.1/?state=wrong&code=1\n")
    assert "https://accounts.google.com/" in said, said


def a_strict_container(podman):
    """The way of docs/guide/containers.md and of packaging/compose.yaml."""
    podman("run", "--detach", "--name=strict", *STRICT, "--volume=state:/var/lib/postkey", IMAGE)
    serves(podman, "strict")
    check_confinement(podman, "strict")
    check_commands(podman, "strict")
    podman("stop", "--time=20", "strict")
    code = podman("inspect", "--format={{.State.ExitCode}}", "strict").strip()
    assert code == "0", f"it has ended with {code}:\n{podman('logs', 'strict')}"
    logs = podman("logs", "strict")
    assert "stopped" in logs and " WARN " not in logs, logs
    podman("healthcheck", "run", "strict", code=125)
    podman("start", "strict")
    serves(podman, "strict")
    podman("rm", "--force", "--time=5", "strict")


def a_pod_of_a_cluster(podman):
    """Volumes as Kubernetes mounts them with an fsGroup: they belong to root and to the group."""
    mounted, state = podman.folder / "etc", podman.folder / "state"
    files = mounted / "..2026_11_29"
    (files / "tls").mkdir(parents=True)
    (files / "postkey.toml").write_text(CLUSTER)
    (files / "client.secret").write_text("a secret")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days=2",
                    "-subj=/CN=postkey", f"-keyout={files}/tls/tls.key", f"-out={files}/tls/tls.crt"],
                   check=True, capture_output=True)
    state.mkdir()
    # A change replaces the link ..data, so that all files change at once.
    (mounted / "..data").symlink_to(files.name)
    for name in ("postkey.toml", "client.secret", "tls"):
        (mounted / name).symlink_to(f"..data/{name}")
    own = [file for file in files.rglob("*") if file.is_file()]
    for path, mode in ((mounted, 0o3777), (files, 0o2755), (state, 0o2775), *((file, 0o440) for file in own)):
        os.chown(path, 0, 990)
        path.chmod(mode)
    # The vault's folder has to belong to the daemon alone, so it is one inside of the volume.
    podman("run", "--detach", "--name=pod", *STRICT, f"--volume={mounted}:/etc/postkey:ro", f"--volume={state}:/var/lib/postkey",
           "--env=STATE_DIRECTORY=/var/lib/postkey/state", IMAGE)
    serves(podman, "pod")
    told = podman("exec", "pod", "postkey", "status")
    assert "0.0.0.0:1993 security tls" in told, told
    logs = podman("logs", "pod")
    assert " WARN " not in logs, logs
    podman("rm", "--force", "--time=5", "pod")


def options(description):
    """The options of what builds the image."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clean", required=True, type=Path, help="a clean Debian as a tar file")
    parser.add_argument("--program", required=True, type=Path, help="the program")
    parser.add_argument("--folder", required=True, type=Path, help="a folder for this alone")
    return parser


def main():
    """Builds and runs everything."""
    arguments = options(__doc__).parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    podman = Podman(arguments.folder.resolve())
    podman.remove()
    podman.folder.mkdir()
    try:
        build(podman, arguments.clean, arguments.program)
        check_image(podman)
        a_strict_container(podman)
        a_pod_of_a_cluster(podman)
    finally:
        podman.remove()


if __name__ == "__main__":
    main()
