"""Shell completion of overrides and run ids, without importing Hydra or torch, which are slow."""

import contextlib
import io
import os
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

from seqbench.config.choices import CONFIG_FOLDER, choices_of

# Config group as the user types it -> folder of its files.
GROUPS = {
    **{name: name for name in ("model", "task", "budget", "optimizer", "schedule", "protocol")},
    "tracker": "tracker",
    "recipe": "recipe",
    "launch": "hydra/launcher",
    "search": "hydra/sweeper",
}
# Groups whose keys are completed; `trainer` has a single file, so it is not in GROUPS.
VALUES = ("model", "task", "optimizer", "schedule", "trainer", "launch", "search")
ROOT = ("seed", "device", "threads", "data_dir", "output_dir")


def overrides(incomplete: str) -> list[str]:
    """Return the overrides that complete a word.

    Before `=` these are keys, after it the choices of the group, also after a comma.
    """
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
    """Return the choices of a group; empty if there is no such group."""
    return choices_of(GROUPS.get(group, "nothing"))


@cache
def values(group: str) -> list[str]:
    """Return the keys that any of the group's files sets, sorted."""
    import yaml

    found: set[str] = set()
    for path in (CONFIG_FOLDER / GROUPS.get(group, group)).glob("*.yaml"):
        found |= (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).keys()
    return sorted(name for name in found if not name.startswith("_"))


def runs(incomplete: str) -> list[str]:
    """Return the ids in ./outputs that start with a prefix."""
    folders = Path("outputs").glob(f"r*/*/*/{incomplete}*")
    return sorted(path.name for path in folders if incomplete.isalnum() or not incomplete)


def in_bash(complete: Callable[[], None]) -> None:
    """Run a completion for bash, which splits `model=t` into three words and completes only `t`.

    Args:
        complete: reads the words from the environment, prints the completions, and exits.
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
        # Bash replaces only the part after `=`: strip the key from each completion.
        for line in answers.getvalue().splitlines():
            print(line.removeprefix(key + equals) if equals else line)
        sys.stdout.flush()
