"""The list of what is in the program (CycloneDX) and the licenses beside it name the same packages.

    documents.py postkey.cdx.json licenses.txt.gz
"""

import gzip
import json
import re
import sys
from pathlib import Path


def main():
    """Compares both."""
    document = json.loads(Path(sys.argv[1]).read_bytes())
    licenses, _, _ = gzip.decompress(Path(sys.argv[2]).read_bytes()).decode().partition("\n---")
    if document["bomFormat"] != "CycloneDX" or document["metadata"]["component"]["name"] != "postkey":
        sys.exit("the list is about something else")
    listed = {(component["name"], component["version"]) for component in document["components"]}
    licensed = set(re.findall(r"^  (\S+) (\S+): ", licenses, re.MULTILINE))
    if licensed - listed or len(licensed) < 100:
        sys.exit(f"{len(licensed)} packages have a license, and the list lacks {sorted(licensed - listed)}")
    without = [component["name"] for component in document["components"] if not component.get("licenses")]
    if without:
        sys.exit(f"without a license: {without}")
    print(f"{len(listed)} dependencies are listed, {len(licensed)} of them are in the program; all have a license.")


if __name__ == "__main__":
    main()
