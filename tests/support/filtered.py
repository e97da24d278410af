#!/usr/bin/env python3
"""Runs a program under the system call filter of systemd/postkey.service, but kills it where the unit only refuses the call.

filtered.py PROGRAM ARGUMENT...

What a service manager does with SystemCallFilter=, by libseccomp: the names and sets of the lines are allowed, those of
lines with a tilde are not.
"""

import ctypes
import os
import pathlib
import subprocess
import sys

UNIT = pathlib.Path(__file__).resolve().parents[2] / "systemd/postkey.service"
KILL_PROCESS, ALLOW = 0x80000000, 0x7FFF0000


def expand(word: str) -> set[str]:
    """The system calls of a set, including those of the sets in it; of a name, the name."""
    if not word.startswith("@"):
        return {word}
    listed = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager", word], check=True, capture_output=True, text=True
    ).stdout
    words = [line.strip() for line in listed.splitlines()[1:]]
    return set().union(*(expand(word) for word in words if word and not word.startswith("#")))


def allowed() -> set[str]:
    # Calls that any filter of a service manager allows (systemd.exec(5)).
    names = expand("@default")
    for line in UNIT.read_text().splitlines():
        if line.startswith("SystemCallFilter="):
            words = line.removeprefix("SystemCallFilter=")
            listed = set().union(*(expand(word) for word in words.removeprefix("~").split()))
            names = names - listed if words.startswith("~") else names | listed
    return names


def main() -> None:
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    names = allowed()
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(KILL_PROCESS)))
    for name in names:
        number = library.seccomp_syscall_resolve_name(name.encode())
        # Calls below 0 do not exist on this machine.
        if number >= 0 and library.seccomp_rule_add(context, ctypes.c_uint32(ALLOW), number, 0) != 0:
            sys.exit(f"{name} cannot be allowed")
    if library.seccomp_load(context) != 0:
        sys.exit("the filter cannot be loaded")
    os.execv(sys.argv[1], sys.argv[1:])


main()
