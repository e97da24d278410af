"""mutt_oauth2.py as Debian's mutt ships it, edited as its README says, with a token file that gpg encrypts."""

import re
import subprocess
from pathlib import Path

from process import Failure

SOURCE = Path("/usr/share/doc/mutt/examples/mutt_oauth2.py")


class MuttOauth2:
    """The script with one registration, for one account."""

    def __init__(self, world, address, client_id):
        self._world, self.address = world, address
        self.folder = world.run.subfolder("mutt-oauth2")
        self.folder.chmod(0o700)
        self.token_file = self.folder / "tokens"
        self._env = {"PATH": "/usr/bin:/bin", "GNUPGHOME": str(self.folder), "SSL_CERT_FILE": str(world.run.ca)}
        self._run("gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key", address, "default", "default", "never")
        issuer = world.server.issuer
        registration = {"authorize_endpoint": f"{issuer}/auth", "token_endpoint": f"{issuer}/token", "client_id": client_id,
                        "client_secret": "", "scope": "openid email offline_access", "sasl_method": "OAUTHBEARER"}
        text = SOURCE.read_text().replace("YOUR_GPG_IDENTITY", address)
        text = text.replace("registrations = {", f"registrations = {{'test': {registration | {'redirect_uri': ''}!r},", 1)
        self.script = self.folder / "mutt_oauth2.py"
        self.script.write_text(text)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._run("gpgconf", "--kill", "all")

    @property
    def decrypt_command(self):
        """What its user types to see the token file."""
        return f"gpg --homedir {self.folder} --quiet --decrypt"

    def sign_in(self, person):
        """Its first run, in which a person answers its questions and consents."""
        command = ["/usr/bin/python3", "-u", self.script, "--authorize", self.token_file]
        child = subprocess.Popen(command, env=self._env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            child.stdin.write(f"test\nlocalhostauthcode\n{self.address}\n")
            child.stdin.close()
            printed = ""
            for line in child.stdout:
                printed += line
                if url := re.search(r"https://\S+/auth\?\S+", line):
                    break
            else:
                raise Failure(f"mutt_oauth2.py shows no page to sign in on:\n{printed}")
            person.authorize_and_return(url[0])
            printed += child.stdout.read()
            if child.wait(30) != 0:
                raise Failure(f"mutt_oauth2.py ends with {child.returncode}:\n{printed}")
        finally:
            child.kill()
            child.wait()

    def access_token(self):
        """What it prints for mutt."""
        return self._run("/usr/bin/python3", self.script, self.token_file).strip()

    def _run(self, *command):
        done = subprocess.run(list(map(str, command)), env=self._env, capture_output=True, text=True, timeout=60)
        if done.returncode != 0:
            raise Failure(f"{command[0]} ends with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout
