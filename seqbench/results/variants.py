"""Label runs of the same model or task by the options that distinguish them."""

import json
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from seqbench.runs.identity import DIGESTS, FILES

# A variant names as many options as needed to be unique, and further ones up to this many.
NAMED_DIFFERENCES = 3
# Key within a config node under which the hash of custom code is listed.
CODE = "_code_"
# Key of the run, or of the digest of the weights, that a run started from. It is always named.
START = "from"
# Key of the method by which a run was compressed, likewise.
METHOD = "method"
SECTIONS = ("task", "model", "optimizer", "schedule", "trainer")

canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def tell_apart(options: Sequence[dict[str, Any]]) -> list[str]:
    """Return a short label for each rival, made of the options that distinguish it.

    Args:
        options: each rival's flat options; no two are equal.

    Returns:
        Labels like `kernel_size=7, lr=0.002`, without the options that all rivals share, but with
        the run whose weights a rival started from: `from=3f2a1b2c`. If not all differing options
        are named, the label ends with their number: `+4 more`; but if a rival is a compressed run,
        no more are named than are needed. Labels that would be equal end with ` #1`, ` #2`. A
        single rival that started from random weights gets an empty label.
    """
    names = sorted({key for rival in options for key in rival}, key=_rank)
    # Most options are shared by all: skip formatting them.
    shared = {key for key in names if all(o.get(key) == options[0].get(key) for o in options)}
    shared -= {START, METHOD}
    texts = {key: [shown(key, rival) for rival in options] for key in names if key not in shared}
    differing = [key for key in texts if len(set(texts[key])) > 1]

    def groups(keys: list[str]) -> int:
        return len(set(zip(*(texts[key] for key in keys), strict=True))) if keys else 1

    always = [key for key in (START, METHOD) if key in names]
    chosen = list(always)
    while groups(chosen) < len(options) and (rest := [k for k in differing if k not in chosen]):
        chosen.append(max(rest, key=lambda key: groups([*chosen, key])))
    # Options that follow from others (data hashes, parameter counts) add no information.
    others = [key for key in differing if key not in chosen and not _follows(key)]
    if METHOD in names:
        others = []
    named = max(0, NAMED_DIFFERENCES - len(set(chosen) - {*always}))
    chosen = sorted(chosen + others[:named], key=_rank)
    unnamed = [f"+{len(others) - named} more"] if len(others) > named else []
    leaves = [leaf(key) for key in {*differing, *chosen}]
    names = [leaf(key) if leaves.count(leaf(key)) == 1 else key for key in chosen]
    labels = []
    for i in range(len(options)):
        values = [texts[key][i] for key in chosen]
        parts = [f"{name}={value}" for name, value in zip(names, values, strict=True) if value]
        labels.append(", ".join(parts + unnamed))
    if len(set(labels)) < len(labels):  # differences that the short form hides
        labels = [f"{label} #{i}" for i, label in enumerate(labels, start=1)]
    return labels


def leaf(key: str) -> str:
    """Return the last part of a dotted key; the node's name for `_target_`, `code` for hashes."""
    last = key.removesuffix("._target_").rpartition(".")[2]
    return "code" if last == CODE else last


def shown(key: str, options: dict[str, Any]) -> str:
    """Return an option's value as a short text; an empty text if the option is missing."""
    if key not in options:
        return ""
    value = options[key]
    if isinstance(value, str):
        if key.endswith("._target_"):
            for package in ("torch.optim.", "seqbench.training.schedules.", "seqbench."):
                value = value.removeprefix(package)
            return value
        if key.startswith("data.") or key in DIGESTS or key.endswith(f".{CODE}"):
            return value[:12]
        if key.startswith("task.") and leaf(key) in FILES:
            return canonical(PurePath(value).name)
        if key in ("continues", METHOD):
            return value
        if key == START:
            return value[:8]
        if value.isidentifier() and value not in ("true", "false", "null"):
            return value
    if isinstance(value, list) and len(value) > 1 and len({canonical(v) for v in value}) == 1:
        return f"[{canonical(value[0])}]*{len(value)}"
    return canonical(value)


def _follows(key: str) -> bool:
    return key in ("parameters", *DIGESTS) or key.startswith("data.")


def _rank(key: str) -> tuple[int, str]:
    """Return the sort key of options: by section; those that follow from others last."""
    section = key.partition(".")[0]
    if key in (START, METHOD):
        return -1, key
    place = SECTIONS.index(section) if section in SECTIONS else len(SECTIONS)
    return (len(SECTIONS) + 1 if _follows(key) else place), key
