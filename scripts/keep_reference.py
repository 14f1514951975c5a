"""Keeps what is worth keeping of runs: records, which hold the configuration, and thinned events.

    python scripts/keep_reference.py outputs/runs outputs/reference/tcn2018

Runs that did not complete are left out. The README's tables, each below the command that prints it,
are then made anew.
"""

import argparse
import json
import re
import shutil
import subprocess
from pathlib import Path

from seqbench.results.collect import collect, read_events

# Training losses of a run; those on validation are few, and all kept.
MOST_LOSSES = 200
README = Path(__file__).parents[1] / "README.md"
TABLE = re.compile(r"(<!-- (seqbench table .*?) -->\n).*?(?=\n<!-- end)", re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+", help="folders with runs")
    parser.add_argument("reference", type=Path, help="folder to keep them in")
    arguments = parser.parse_args()
    found = collect(arguments.runs)
    for record in found.records:
        if record.status == "completed":
            folder = found.folders[record.run_id]
            keep(folder, arguments.reference / record.task / record.model / record.run_id)
    text = TABLE.sub(lambda found: found[1] + printed(found[2]), README.read_text("utf-8"))
    README.write_text(text, encoding="utf-8")


def printed(command: str) -> str:
    """A table as the README shows it: without the mark of older code, which most changes add."""
    done = subprocess.run(
        command.split(), cwd=README.parent, capture_output=True, text=True, check=True
    )
    lines = [line for line in done.stdout.strip().splitlines() if not line.startswith("- †")]
    return "\n".join(lines).replace("†", "")


def keep(run: Path, place: Path) -> None:
    """Copy the small files of a run."""
    place.mkdir(parents=True, exist_ok=True)
    # Its configuration stands in it, without the paths of the machine that it ran on.
    shutil.copyfile(run / "record.json", place / "record.json")
    events = read_events(run / "events.jsonl")
    losses = [event for event in events if event["split"] == "train"]
    every = -(-len(losses) // MOST_LOSSES) or 1
    kept = losses[::every] + [event for event in events if event["split"] != "train"]
    kept.sort(key=lambda event: (event["step"], event["split"]))
    lines = [json.dumps(event) + "\n" for event in kept]
    (place / "events.jsonl").write_text("".join(lines), encoding="utf-8")
    print(place)


if __name__ == "__main__":
    main()
