"""Keeps what is worth keeping of runs: records, which hold the configuration, and thinned events.

    python scripts/keep_reference.py outputs/runs outputs/reference/tcn2018

The README's table of results is made of what stands there. Runs that did not complete are left out.
"""

import argparse
import json
import shutil
from pathlib import Path

from seqbench.results.collect import collect, read_events

# Training losses of a run; those on validation are few, and all kept.
MOST_LOSSES = 200


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
