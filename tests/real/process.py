"""A run of the tests: its folder, its certificates, its ports, and every process that it starts and ends."""

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def options(description):
    """The options of all suites, to which more can be added. From now on SIGTERM ends the suite, and what it has started."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postkey", required=True, type=Path, help="the binary to test")
    parser.add_argument("--only", default="", help="run only the tests whose name holds this text")
    parser.add_argument("--keep", action="store_true", help="keep the run's folder")
    return parser


class Failure(Exception):
    """A test failed. The text is for the person who reads the report."""


def wait_until(condition, what, seconds=20.0):
    """Calls `condition` until it returns something true, and returns that."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        result = condition()
        if result:
            return result
        time.sleep(0.02)
    raise Failure(f"not within {seconds:.0f} s: {what}")


GIVEN_PORTS = []


def free_port():
    """A free loopback port below the range from which the kernel takes ports for outgoing connections.

    No other call gets it while this process lives, in other processes either: an abstract Unix socket named after it
    stands for it, also while nothing listens there.
    """
    while True:
        port = random.randrange(20000, 32000)
        given = socket.socket(socket.AF_UNIX)
        with socket.socket() as probe:
            try:
                given.bind(f"\0postkey-test-port-{port}")
                probe.bind(("127.0.0.1", port))
            except OSError:
                given.close()
                continue
        GIVEN_PORTS.append(given)
        return port


def is_listening(port):
    """Whether something accepts connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Process:
    """A program in the foreground, in a separate session, with its output in a log."""

    def __init__(self, name, command, log, stdin=subprocess.DEVNULL, stdout=None, env=None, pass_fds=()):
        self.name, self.log = name, Path(log)
        with open(self.log, "ab") as sink:
            self.child = subprocess.Popen(
                command, stdin=stdin, stdout=stdout or sink, stderr=sink, env=env, pass_fds=pass_fds, start_new_session=True
            )

    def wait_for_ports(self, *ports):
        """Returns when all the ports accept connections, after five minutes at most: behind everything else a program starts slowly."""
        for port in ports:
            wait_until(lambda: self.child.poll() is not None or is_listening(port), f"{self.name} on port {port}", 300)
        if self.child.poll() is not None:
            raise Failure(f"{self.name} has ended by itself:\n{self.last_lines()}")

    def last_lines(self, count=30):
        """The end of its log."""
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-count:])

    def cpu_seconds(self):
        """The CPU time so far, also of its children, and of those that have ended."""
        stats = {pid: proc_stat(pid) for pid in all_processes()}
        family = {self.child.pid}
        while more := {pid for pid, stat in stats.items() if int(stat[1]) in family} - family:
            family |= more
        return sum(sum(map(int, stats[pid][11:15])) for pid in family if pid in stats) / os.sysconf("SC_CLK_TCK")

    def memory(self, what="VmRSS"):
        """Its resident memory in MB; with `VmHWM`, the most that it has had."""
        status = Path(f"/proc/{self.child.pid}/status").read_text("utf-8")
        return next(int(line.split()[1]) / 1000 for line in status.splitlines() if line.startswith(what))

    def stop(self):
        """Ends it with SIGTERM, and after ten seconds with SIGKILL, together with the rest of its session."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(10)
            except subprocess.TimeoutExpired:
                self._signal_group(signal.SIGKILL)
                self.child.wait()
        self._signal_group(signal.SIGKILL)

    def _signal_group(self, number):
        try:
            os.killpg(self.child.pid, number)
        except ProcessLookupError:
            pass


class Run:
    """The folder of one run. At its end, every process is ended and everything removed."""

    def __init__(self, keep=False):
        self.folder = Path(tempfile.mkdtemp(prefix="postkey-real-"))
        self.folder.chmod(0o755)  # Dovecot and Postfix enter it as other users
        self.keep = keep
        self.processes, self.sessions = [], set()
        self.ca, self.certificate, self.key = self._make_certificates()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.stop()
        self._wait_for_the_last_process()
        if self.keep:
            print(f"kept: {self.folder}")
        else:
            shutil.rmtree(self.folder)

    def _wait_for_the_last_process(self):
        """A server's children may take a moment longer than the server. None may stay."""
        def all_gone():
            return not any(session_of(pid) in self.sessions for pid in all_processes())

        wait_until(all_gone, "the end of all processes of the run")

    def start(self, name, command, **options):
        """Starts a program that is ended with the run at the latest."""
        process = Process(name, command, self.folder / f"{name}.log", **options)
        self.processes.append(process)
        self.sessions.add(process.child.pid)
        return process

    def stop(self, process):
        """Ends a program before the run does."""
        process.stop()
        self.processes.remove(process)

    def subfolder(self, name):
        """A new folder in the run's folder."""
        path = self.folder / name
        path.mkdir(parents=True)
        return path

    def write_json(self, name, content):
        """A file that only root may read."""
        return write_private(self.folder / name, json.dumps(content, indent=2))

    def signing_key(self):
        """A key that signs assertions: PEM, its certificate, and both as PKCS#12 under Google's usual password."""
        folder = self.subfolder("signing")
        key, certificate, both = folder / "key.pem", folder / "certificate.pem", folder / "both.p12"
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "2",
                "-subj", "/CN=a client of a test run")
        openssl("pkcs12", "-export", "-inkey", key, "-in", certificate, "-out", both, "-passout", "pass:notasecret")
        return key, certificate, both

    def _make_certificates(self):
        """A certificate authority for this run, and one certificate for every server."""
        folder = self.subfolder("certificates")
        ca, ca_key, leaf, key, request = (folder / name for name in ("ca.pem", "ca.key", "leaf.pem", "leaf.key", "leaf.csr"))
        extensions = folder / "extensions"
        extensions.write_text("subjectAltName = IP:127.0.0.1, DNS:localhost\nextendedKeyUsage = serverAuth\n")
        new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        openssl("req", "-x509", *new_key, "-keyout", ca_key, "-out", ca, "-days", "2", "-subj", "/CN=CA of a test run")
        openssl("req", "-new", *new_key, "-keyout", key, "-out", request, "-subj", "/CN=localhost")
        openssl("x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "2",
                "-extfile", extensions, "-out", leaf)
        return ca, leaf, key


def all_processes():
    """The ids of everything that runs on the machine."""
    return [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]


def session_of(pid):
    """The session of a process; None if it has ended."""
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def proc_stat(pid):
    """The fields of proc_pid_stat(5) from the state on; zeros if it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    except FileNotFoundError:
        return [0] * 50


def openssl(*arguments):
    """Runs openssl. Its output matters only if it fails."""
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        raise Failure(f"openssl {arguments[0]}: {done.stderr}")


def write_private(path, text):
    """Writes a file that only its owner may read, as clients require for files with passwords."""
    path.touch(0o600)
    path.write_text(text)
    return path
