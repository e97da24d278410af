"""Starts packaging/cluster/compose.yaml with podman-compose, on a network of its own, and connects to a replica through HAProxy.

    python3 compose.py --clean TAR --program PATH --compose PROGRAM --folder FOLDER

No image is downloaded: those of PostgreSQL and HAProxy are made from the clean Debian and its packages, and behave like the real ones as
far as the example uses them. Everything is in the folder, which is removed at the end, and before if a run was killed.
"""

import os
import shutil
import signal
import subprocess
import sys
import time

from image import BASE, Podman, build, options

REPLICAS = ("one", "two", "three")

# As the image in the registry does it: as root it prepares the folders, and as the database's user all the rest.
POSTGRES_ENTRYPOINT = """#!/bin/bash
set -eu
if [ "$(id --user)" = 0 ]; then
    export POSTGRES_PASSWORD=$(cat "$POSTGRES_PASSWORD_FILE")
    mkdir -p "$PGDATA"
    chmod 700 "$PGDATA"
    chown postgres "$PGDATA" /var/run/postgresql
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    # shellcheck disable=SC2086
    initdb --username="$POSTGRES_USER" --pwfile=<(echo "$POSTGRES_PASSWORD") $POSTGRES_INITDB_ARGS
    # Clients that come now find a server without their database, which ends again.
    pg_ctl --options="-c listen_addresses=" --wait start
    PGPASSWORD=$POSTGRES_PASSWORD createdb --username="$POSTGRES_USER" "$POSTGRES_USER"
    pg_ctl --mode=fast --wait stop
fi
exec "$@"
"""

INSTALL = "RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends"

POSTGRES = f"""FROM {BASE}
RUN mkdir /etc/postgresql-common && echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf
{INSTALL} --option=Dpkg::Options::=--force-confold postgresql-15
ENV PGDATA=/var/lib/postgresql/data PATH=/usr/local/bin:/usr/lib/postgresql/15/bin:/usr/sbin:/usr/bin:/sbin:/bin
VOLUME /var/lib/postgresql/data
COPY --chmod=755 entrypoint /usr/local/bin/
ENTRYPOINT ["entrypoint"]
STOPSIGNAL SIGINT
"""

HAPROXY = f"""FROM {BASE}
{INSTALL} haproxy ca-certificates
STOPSIGNAL SIGUSR1
USER haproxy
CMD ["haproxy", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]
"""

# The networks are not those of this machine.
CONTAINERS_CONF = """
[containers]
default_ulimits = ["nofile=16384:16384", "nproc=1000:1000"]
[network]
network_backend = "netavark"
network_config_dir = "{folder}/networks"
"""


class Cluster:
    """The example's folder, its network namespace, and podman-compose."""

    def __init__(self, podman, program):
        self.podman, self.folder, self._program = podman, podman.folder / "packaging/cluster", program
        self.namespace = podman.folder / "namespace"

    def prepare(self):
        """Copies the example, and prepares it as its reader does."""
        shutil.copytree("packaging/cluster", self.folder)
        (self.podman.folder / "config").mkdir()
        shutil.copytree("config/examples", self.podman.folder / "config/examples")
        subprocess.run([self.folder / "prepare"], check=True, capture_output=True)
        self.namespace.touch()
        subprocess.run(["unshare", f"--net={self.namespace}", "ip", "link", "set", "lo", "up"], check=True)

    def run(self, *command, **more):
        """Runs a command in the network namespace. Returns what it prints."""
        command = ["nsenter", f"--net={self.namespace}", *map(str, command)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False, **more)
        assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}"
        return done.stdout

    def compose(self, *arguments):
        """Runs podman-compose."""
        return self.run(self._program, "--podman-path", self.podman.script(), "--file", self.folder / "compose.yaml", *arguments)

    def status(self, replica):
        """What `postkey status` says in a replica."""
        return self.podman("exec", f"cluster_{replica}_1", "postkey", "status", code=None)

    def greeting(self, port, farewell):
        """What a mail program reads at HAProxy's port, with the certificate checked."""
        connect = ["openssl", "s_client", "-quiet", "-connect", f"127.0.0.1:{port}", "-CAfile", self.folder / "etc/cert.pem",
                   "-verify_hostname", "mail.example.com", "-verify_return_error"]
        return self.run(*connect, input=f"{farewell}\r\n")

    def end(self):
        """Removes the containers and their network, whose addresses podman would go on reserving."""
        command = ["nsenter", f"--net={self.namespace}", self.podman.script(), "network", "rm", "--force", "cluster_default"]
        subprocess.run(command, capture_output=True, timeout=120, check=False)


def build_others(podman):
    """Builds the images that the example takes from a registry."""
    for tag, text in (("postgres:15", POSTGRES), ("haproxy:2.6", HAPROXY)):
        folder = podman.folder / tag.partition(":")[0]
        folder.mkdir()
        (folder / "Containerfile").write_text(text)
        (folder / "entrypoint").write_text(POSTGRES_ENTRYPOINT)
        podman("build", "--pull-never", "--format=docker", "--network=host", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000",
               "--tag", f"docker.io/library/{tag}", str(folder))


def within(seconds, what, text):
    """Waits until `what` returns something with this text."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = what()
        except AssertionError as error:
            found = str(error)
        if text in found:
            return
        assert time.monotonic() < deadline, f"no {text!r} within {seconds} s in\n{found}"
        time.sleep(0.5)


def everything_comes_up(cluster):
    """All replicas find the database, whenever it is ready, and HAProxy finds them."""
    cluster.compose("up", "--detach")
    for replica in REPLICAS:
        within(60, lambda: cluster.status(replica), "0.0.0.0:1993 security tls")
    within(20, lambda: cluster.greeting(993, "a LOGOUT"), "* OK [CAPABILITY IMAP4rev1")
    within(20, lambda: cluster.greeting(465, "QUIT"), "220 ")


def without_one_replica_the_others_serve(cluster):
    """Once HAProxy has noticed by two checks, each of which may take two seconds, no connection is lost."""
    cluster.compose("stop", "two")
    time.sleep(6)
    for _ in range(6):
        cluster.greeting(993, "a LOGOUT")


def main():
    """Builds and runs everything."""
    parser = options(__doc__)
    parser.add_argument("--compose", required=True, help="podman-compose")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    podman = Podman(arguments.folder.resolve())
    cluster = Cluster(podman, arguments.compose)
    podman.remove()
    podman.folder.mkdir()
    try:
        configuration = podman.folder / "containers.conf"
        configuration.write_text(CONTAINERS_CONF.format(folder=podman.folder))
        os.environ["CONTAINERS_CONF"] = str(configuration)
        build(podman, arguments.clean, arguments.program)
        build_others(podman)
        cluster.prepare()
        everything_comes_up(cluster)
        without_one_replica_the_others_serve(cluster)
        cluster.compose("down", "--volumes")
    finally:
        cluster.end()
        podman.remove()


if __name__ == "__main__":
    main()
