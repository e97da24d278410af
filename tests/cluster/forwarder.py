"""A network between a replica and the database that can be cut: a HAProxy of its own."""

import signal

from process import free_port, write_private

# A statement never takes as long as these limits. If the database is away, the replica is told at once.
CONFIGURATION = """
global
  nbthread 1
  maxconn 200
defaults
  mode tcp
  timeout connect 60s
  timeout client 1h
  timeout server 1h
  retries 0
listen database
  bind 127.0.0.1:{port}
  server database 127.0.0.1:{target}
"""


class Forwarder:
    """Forwards connections from `port` to a target.

    It is cut by a stop of its process. The kernel still accepts connections for it, as a firewall that drops packets seems to do, and
    keeps what it gets: bytes and ends of connections arrive when the network is back, as after a cable was unplugged.
    """

    def __init__(self, run, name, target):
        self.port = free_port()
        name = f"network-of-{name}"
        file = write_private(run.folder / f"{name}.cfg", CONFIGURATION.format(port=self.port, target=target))
        self.process = run.start(name, ["/usr/sbin/haproxy", "-db", "-f", str(file)])
        self.process.wait_for_ports(self.port)

    def cut(self):
        """From now on nothing gets through, and nobody is told."""
        self.process.child.send_signal(signal.SIGSTOP)

    def restore(self):
        """Everything gets through again."""
        self.process.child.send_signal(signal.SIGCONT)
