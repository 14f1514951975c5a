"""Print the README's tables anew, each beneath the command that stands above it in a comment.

    python scripts/readme_tables.py README.md README.ko.md

Run it after a change of the code that computes results: tables say which runs are of older code.
"""

import re
import subprocess
import sys
from pathlib import Path

TABLE = re.compile(r"(<!-- seqbench (table .*?) -->\n).*?(\n<!-- end)", re.DOTALL)


def main() -> None:
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(TABLE.sub(renewed, path.read_text(encoding="utf-8")), encoding="utf-8")


def renewed(found: re.Match[str]) -> str:
    command = [sys.executable, "-m", "seqbench", *found[2].split()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return found[1] + done.stdout.strip() + found[3]


if __name__ == "__main__":
    main()
