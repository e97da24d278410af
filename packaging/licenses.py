#!/usr/bin/env python3
"""Prints which packages are compiled into the program, and the texts of their licenses.

    packaging/licenses.py TARGET    the target as rustc names it, such as x86_64-unknown-linux-gnu
"""

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

# The files that a package may have its terms in, by the beginning of their names.
NAMES = ("license", "licence", "copying", "notice", "unlicense", "copyright")


def cargo(*arguments):
    """What a command of Cargo prints."""
    return subprocess.run(["cargo", *arguments, "--locked"], check=True, capture_output=True, text=True).stdout


def linked(target):
    """The names and versions of the packages in the program: not of macros, of build scripts, or of tests."""
    lines = cargo("tree", "--target", target, "--edges", "normal,no-proc-macro", "--prefix", "none").splitlines()
    found = {tuple(line.split()[:2]) for line in lines if line}
    return {(name, version.removeprefix("v")) for name, version in found if name != "postkey"}


def texts(package):
    """The files with its terms."""
    folder = Path(package["manifest_path"]).parent
    named = {file for file in folder.iterdir() if file.is_file() and file.name.lower().startswith(NAMES)}
    if package["license_file"]:
        named.add(folder / package["license_file"])
    return sorted(named)


def main():
    """Prints the list, and then each text with the packages that have it."""
    target = sys.argv[1]
    wanted = linked(target)
    metadata = json.loads(cargo("metadata", "--format-version=1", "--filter-platform", target))
    packages = sorted((package for package in metadata["packages"] if (package["name"], package["version"]) in wanted),
                      key=lambda package: (package["name"], package["version"]))
    if len(packages) != len(wanted):
        sys.exit(f"cargo tree names {len(wanted)} packages, and cargo metadata {len(packages)} of them")
    print("postkey contains these packages. Each has its own license:\n")
    users, nameless = defaultdict(list), []
    for package in packages:
        name, files = f"{package['name']} {package['version']}", texts(package)
        if not package["license"] and not files:
            nameless.append(name)
        authors = "" if files else f", by {', '.join(package['authors']) or 'its authors'}; the package has no text of it"
        print(f"  {name}: {package['license'] or 'see below'}{authors}")
        for file in files:
            users[file.read_text(errors="replace").strip()].append(f"{name} ({file.name})")
    if nameless:
        sys.exit(f"no license: {', '.join(nameless)}")
    for text, names in users.items():
        print(f"\n{'-' * 80}\n{', '.join(names)}:\n\n{text}")


if __name__ == "__main__":
    main()
