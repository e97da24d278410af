"""DavMail's properties, written by Debian's DavMail itself. It serves no mail here, because it speaks to Exchange only."""

import subprocess
from pathlib import Path

from process import Failure

WRITER = Path(__file__).with_name("DavMail.java")
CLASSES = "/usr/share/davmail/davmail.jar:/usr/share/java/*"


def write_properties(file, address, password, token, **properties):
    """The file of an account that has signed in. The names of properties have underscores for dots."""
    named = [f"davmail.{name.replace('_', '.')}={value}" for name, value in properties.items()]
    # Not in the environment, where the search for secrets would find them.
    done = subprocess.run(["java", "-cp", CLASSES, WRITER, file, address, *named], input=f"{password}\n{token}\n",
                          capture_output=True, text=True, timeout=120, cwd=file.parent,
                          env={"PATH": "/usr/bin:/bin", "HOME": str(file.parent)})
    if done.returncode != 0:
        raise Failure(f"DavMail ends with {done.returncode}:\n{done.stdout}{done.stderr}")
