"""Rewrite command-line overrides so that Hydra accepts them."""

import re
from collections.abc import Iterable

from seqbench.config.choices import groups
from seqbench.runs.identity import FILES

# Keys whose values are paths.
PATHS = ("output_dir", "data_dir", "init_from", *(f"task.{name}" for name in FILES))
# Path keys that may have several values in a sweep.
SWEPT_PATHS = ("task.path", "init_from")
# seqbench's names for Hydra's launcher and sweeper: `launch=slurm`, `search.trials=9`.
SHORT = {"launch": "launcher", "search": "sweeper"}
# Added by `for_hydra` to unset steps if the user sets epochs, and epochs if the user sets steps.
ADDED_NULLS = ("trainer.steps=null", "trainer.epochs=null")
# One item of a comma-separated list: a quoted string, or text up to the next comma.
ITEM = re.compile(r"""\s*('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^,]*?)\s*,""")
FUNCTION = re.compile(r"(choice|shuffle|sort|tag|glob|range|interval)\((.*)\)", re.DOTALL)


def as_text(override: str) -> str:
    """Return the override, with its value quoted if it is a path.

    Unquoted, Hydra interprets or rejects `~`, brackets, blanks and non-ASCII letters. A `task.path`
    with commas, or `choice(...)`, is a list of texts to sweep over: each of them is quoted, and
    `choice` is left out, since it would lose the quotes.
    """
    key, equals, value = override.partition("=")
    name = key.lstrip("+")
    if name not in PATHS or not equals:
        return override
    if name not in SWEPT_PATHS:
        return f"{key}={quoted(value)}"
    function = FUNCTION.fullmatch(value)
    if function and function[1] != "choice":
        return override
    items = ITEM.findall((function[2] if function else value) + ",")
    if "" in items and value:
        return override  # a stray comma is an error that Hydra explains
    return f"{key}={','.join(map(quoted, items))}"


def quoted(value: str) -> str:
    """Return a value in Hydra's single quotes, unless it is empty, `null` or quoted already."""
    if value in ("", "null") or (len(value) > 1 and value[0] == value[-1] and value[0] in "'\""):
        return value
    # Hydra takes a backslash literally, except before a quote.
    escaped = re.sub(
        r"(\\*)('|$)", lambda found: 2 * found[1] + found[2].replace("'", r"\'"), value
    )
    return f"'{escaped}'"


def for_hydra(overrides: Iterable[str], config_dir: str | None = None) -> list[str]:
    """Return overrides with which Hydra sets any value, known to it or not: `lr=1` -> `++lr=1`.

    Hydra would reject the keys of an optimizer that the recipe names, since they are not in the
    composed tree yet. `check` rejects unknown keys later, by the signatures.

    Paths are quoted, `launch` and `search` become Hydra's launcher and sweeper, and the name of a
    choice loses its `.yaml`.
    """
    known = groups(config_dir)
    result, keys = [], set()
    for override in map(as_text, overrides):
        for short, name in SHORT.items():
            if override.startswith(f"{short}="):
                override = override.replace(short, f"hydra/{name}", 1)
            elif override.startswith(f"{short}."):
                override = override.replace(short, f"hydra.{name}", 1)
        key, equals, value = override.partition("=")
        keys.add(key.lstrip("+"))
        if key.lstrip("+~") in known:
            override = key + equals + re.sub(r"\.yaml(?=[],]|$)", "", value)
        is_value = key[:1] not in "+~" and key not in known and not key.startswith("hydra")
        is_value |= key.startswith(tuple(f"hydra.{name}." for name in SHORT.values()))
        result.append(f"++{override}" if is_value and equals and "@" not in key else override)
    # The trainer takes either steps or epochs: setting one unsets the other.
    for named, other in (("steps", "epochs"), ("epochs", "steps")):
        if f"trainer.{named}" in keys and f"trainer.{other}" not in keys:
            result.append(f"++trainer.{other}=null")
    return result


def as_typed(words: Iterable[str]) -> list[str]:
    """Remove what `for_hydra` added: `++`, quotes of paths, the unset steps or epochs."""
    plain = (without_quotes(word.lstrip("+")) for word in words)
    return [word for word in plain if word not in ADDED_NULLS]


def without_quotes(override: str) -> str:
    """Return the override of a path without quotes, if `as_text` adds the same quotes again."""
    key, _, value = override.partition("=")
    inner = value[1:-1].replace(r"\'", "'")
    return f"{key}={inner}" if as_text(f"{key}={inner}") == override else override
