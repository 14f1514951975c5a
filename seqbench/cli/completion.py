"""What a shell offers to complete: overrides, and runs. Nothing here waits for Hydra or torch."""

import contextlib
import io
import os
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

from seqbench.choices import CONFIG_FOLDER, choices_of

# Groups by the names that people type, and where their files are.
GROUPS = {
    **{name: name for name in ("model", "task", "budget", "optimizer", "schedule", "protocol")},
    "tracker": "tracker",
    "recipe": "recipe",
    "launch": "hydra/launcher",
    "search": "hydra/sweeper",
}
# Those whose files hold values that are worth setting; `trainer` has one file only.
VALUES = ("model", "task", "optimizer", "schedule", "trainer", "launch", "search")
ROOT = ("seed", "device", "threads", "data_dir", "output_dir")


def overrides(incomplete: str) -> list[str]:
    """Overrides that begin like this: keys, or what can be chosen of a group, after a comma too."""
    key, equals, value = incomplete.partition("=")
    if equals:
        *before, last = value.split(",")
        names = [name for name in choices(key) if name.startswith(last) and name not in before]
        return [f"{key}={','.join([*before, name])}" for name in names]
    group = key.partition(".")[0]
    known = [*GROUPS, *ROOT]
    if "." in key and group in VALUES:
        known = [f"{group}.{name}" for name in values(group)]
    offered = [f"{name}=" for name in known] + [f"{name}." for name in VALUES if "." not in key]
    return [word for word in offered if word.startswith(incomplete)]


def choices(group: str) -> list[str]:
    """What can be chosen of a group."""
    return choices_of(GROUPS.get(group, "nothing"))


@cache
def values(group: str) -> list[str]:
    """The values that can be set in a group, whatever is chosen of it."""
    import yaml

    found: set[str] = set()
    for path in (CONFIG_FOLDER / GROUPS.get(group, group)).glob("*.yaml"):
        found |= (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).keys()
    return sorted(name for name in found if not name.startswith("_"))


def runs(incomplete: str) -> list[str]:
    """Ids of the runs in ./outputs that begin like this."""
    folders = Path("outputs").glob(f"r*/*/*/{incomplete}*")
    return sorted(path.name for path in folders if incomplete.isalnum() or not incomplete)


def in_bash(complete: Callable[[], None]) -> None:
    """Complete for bash, which takes `model=t` for three words, and `t` alone for incomplete.

    Args:
        complete: reads what bash asks from the environment, prints the answers, and exits.
    """
    words = re.split(r"[ \n]", os.environ["COMP_WORDS"])[: int(os.environ["COMP_CWORD"]) + 1]
    joined: list[str] = []
    for word in words:
        if joined and (word == "=" or joined[-1].endswith("=")):
            joined[-1] += word
        else:
            joined.append(word)
    os.environ["COMP_WORDS"] = "\n".join(joined)
    os.environ["COMP_CWORD"] = str(len(joined) - 1)
    key, equals, _ = joined[-1].partition("=")
    answers = io.StringIO()
    try:
        with contextlib.redirect_stdout(answers):
            complete()
    finally:
        # It replaces the last word by the answer: what stands before the sign is there already.
        for line in answers.getvalue().splitlines():
            print(line.removeprefix(key + equals) if equals else line)
        sys.stdout.flush()
