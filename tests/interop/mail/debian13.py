"""Programs of Debian 13, in a separate folder, each in a separate mount namespace."""

import shlex
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[3] / "target/interop/trixie"


def command(run, arguments, binds=()):
    """The command line for a program in the folder. The run's folder has the same name there; `binds` are further pairs."""
    mounts = [("/dev", "/dev"), (run.folder, run.folder), *binds]
    script = []
    for source, target in mounts:
        inside = shlex.quote(f"{ROOT}{target}")
        make = "touch" if Path(source).is_file() else "mkdir -p"
        script.append(f"{make} {inside} && mount --rbind {shlex.quote(str(source))} {inside}")
    script.append(f"mount -t proc proc {shlex.quote(str(ROOT / 'proc'))}")
    script.append("exec chroot " + shlex.join([str(ROOT), *map(str, arguments)]))
    return ["unshare", "--mount", "sh", "-ec", " && ".join(script)]


def execute(run, arguments, binds=(), **options):
    """Runs a program in the folder to its end."""
    return subprocess.run(command(run, arguments, binds), capture_output=True, **options)
