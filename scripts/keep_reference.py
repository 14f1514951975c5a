"""Keep records and thinned events of completed runs, and renew the tables and figures of the docs.

    python scripts/keep_reference.py outputs/runs outputs/reference/tcn2018
    python scripts/keep_reference.py                    tables and figures only

Each table and figure in README.md and docs/ stands beside the command that makes it. A change of
the code that computes results changes tables, too: they say which runs are of older code.
"""

import argparse
import json
import re
import shlex
import subprocess
from pathlib import Path

from seqbench.results.collect import collect
from seqbench.runs.events import read_events

# Training losses that are kept of a run; metrics on validation are few, and all kept.
MOST_LOSSES = 200
ROOT = Path(__file__).parents[1]
FIGURE = re.compile(
    r"^(?:<!-- )?(seqbench plot outputs/reference(?:[^\n]*\\\n)*[^\n]*\.svg)", re.MULTILINE
)
TABLE = re.compile(r"(<!-- (seqbench table .*?) -->\n).*?(?=<!-- end)", re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", type=Path, nargs="*", help="folders with runs; last: the target")
    *sources, target = parser.parse_args().folders or [None]
    found = collect(sources)
    for record in found.records:
        if record.status == "completed":
            folder = found.folders[record.run_id]
            keep(folder, target / record.task / record.model / record.run_id)
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        page.write_text(TABLE.sub(lambda m: f"{m[1]}{printed(m[2])}\n", text), encoding="utf-8")
        for figure in FIGURE.findall(text):
            printed(figure.replace("\\\n", " "))


def printed(command: str) -> str:
    """Return the output of a command."""
    done = subprocess.run(
        shlex.split(command), cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def keep(run: Path, place: Path) -> None:
    """Copy the record of a run and some of its events."""
    place.mkdir(parents=True, exist_ok=True)
    # The config is part of the record, without paths of the machine that it ran on.
    record = (run / "record.json").read_text(encoding="utf-8")
    config = json.loads(record)["config"]
    if parent := config.get("init_run"):
        record = record.replace(json.dumps(config["init_from"]), json.dumps(parent))
    (place / "record.json").write_text(record, encoding="utf-8")
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
