"""Complete overrides and run ids in the shell.

Hydra and torch are not imported, because importing them is slow.
"""

import contextlib
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import typer

from seqbench.config.choices import choices_of
from seqbench.config.overrides import SHORT
from seqbench.errors import SeqbenchError

# Names of config groups on the command line, and the folders of groups with another folder name.
GROUPS = ("model", "task", "budget", "optimizer", "schedule", "protocol", "tracker", "recipe")
FOLDERS = {short: f"hydra/{name}" for short, name in SHORT.items()}
# Groups whose keys are completed. `trainer` has a single choice, so it is not in GROUPS.
NODES = ("model", "task", "optimizer", "schedule", "trainer")
ROOT = ("seed", "device", "threads", "data_dir", "output_dir")


def overrides(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the completions of an override, given the overrides before it."""
    is_sweep = ctx.info_name == "sweep" or bool(ctx.params.get("multirun"))
    words, config_dir = ctx.params.get("overrides") or [], ctx.params.get("config_dir")
    try:
        return completions(incomplete, words, config_dir, is_sweep)
    except SeqbenchError:  # invalid file in the user's folder; completion must print no error
        return []


def completions(
    incomplete: str, words: Sequence[str] = (), config_dir: str | None = None, is_sweep: bool = True
) -> list[str]:
    """Return the completions of an override.

    Without `=`, complete the key. After `=` or a comma, complete the choice of a group.

    Args:
        incomplete: beginning of the override.
        words: overrides before it on the command line.
        config_dir: folder with the user's choices.
        is_sweep: True if the command accepts the groups `launch` and `search`.
    """
    more = tuple(SHORT) if is_sweep else ()
    groups, nodes = (*GROUPS, *more), (*NODES, *more)
    key, equals, value = incomplete.partition("=")
    if equals:
        *before, last = value.split(",")
        known = choices_of(FOLDERS.get(key, key), config_dir) if key in groups else []
        names = [name for name in known if name.startswith(last) and name not in before]
        return [f"{key}={','.join([*before, name])}" for name in names]
    node = key.partition(".")[0]
    if "." not in key:
        offered = [f"{name}=" for name in (*groups, *ROOT)] + [f"{name}." for name in nodes]
    else:
        keys = keys_of(node, words, config_dir) if node in nodes else []
        offered = [f"{node}.{name}=" for name in keys]
    return [word for word in offered if word.startswith(incomplete)]


def keys_of(node: str, words: Sequence[str], config_dir: str | None) -> list[str]:
    """Return the sorted keys of a config node that exist for all choices in `words`."""
    from seqbench.config.choices import CONFIG_FOLDER, read_choice
    from seqbench.config.precedence import baseline
    from seqbench.config.yaml_file import read_yaml  # not at the top: names do not need YAML

    typed = dict(word.partition("=")[::2] for word in words)
    if node in SHORT:
        defaults = read_yaml(CONFIG_FOLDER / "sweep.yaml").content["defaults"]
        [default] = [e[k] for e in defaults for k in e if k == f"override {FOLDERS[node]}"]
        found = [read_choice(FOLDERS[node], typed.get(node, default))]
    else:
        named = [[(g, name) for name in typed[g].split(",")] for g in GROUPS if g in typed]
        configs = [baseline(config_dir, **dict(chosen)) for chosen in product(*named)]
        found = [config.get(node, {}) for config in configs]
    keys = set.intersection(*map(set, found))
    return sorted(key for key in keys if not key.startswith("_"))


def runs(incomplete: str) -> list[str]:
    """Return the ids of runs in ./outputs that start with a prefix."""
    folders = Path("outputs").glob(f"r*/*/*/{incomplete}*")
    return sorted(path.name for path in folders if incomplete.isalnum() or not incomplete)


def in_bash(complete: Callable[[], None]) -> None:
    """Run a completion for bash.

    Bash splits `model=t` into the words `model`, `=` and `t`, and replaces only `t`. Join the words
    before the completion, and remove `model=` from its results.

    Args:
        complete: function that reads the words from the environment, prints the completions and
            exits.
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
        # Bash replaces only the part after `=`: remove the key from each completion.
        for line in answers.getvalue().splitlines():
            print(line.removeprefix(key + equals) if equals else line)
        sys.stdout.flush()
