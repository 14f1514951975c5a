"""Compute how a run differs from its recipe, and the command that reproduces it.

The recipe's config is merged from plain YAML in Hydra's order, without Hydra: a report of 200 runs
need not wait for it, and values of an untrusted record are only compared, never resolved. A value
that the merge gets wrong becomes an override with the run's value, unless it equals the run's.
"""

import re
import shlex
from functools import cache, reduce
from typing import Any, NamedTuple

import yaml

from seqbench.config.choices import CONFIG_FOLDER
from seqbench.errors import ConfigError
from seqbench.results.where import MISSING, flatten
from seqbench.runs.config_file import YamlLoader
from seqbench.runs.identity import plain_numbers, without_place

NODES = ("task", "model", "optimizer", "schedule", "trainer")
# Data sizes in a task's config; `None` means all data.
SIZES = ("train_size", "valid_size", "eval_size")
# Maximum number of characters of a number.
LONGEST = 20
# Meaning of the choice `auto` if the recipe names none.
FALLBACK = {"optimizer": "adam", "schedule": "constant"}
# Untrusted words that are safe on a command line: names, keys and unquoted values.
NAME = re.compile(r"\w[\w.-]*")
KEY = re.compile(r"[a-z]\w*(\.\w+)*")
BARE = re.compile(r"[A-Za-z/][\w/.-]*")
NOT_TEXT = ("null", "true", "false", "nan", "inf")

Nodes = dict[str, dict[str, Any]]


class Difference(NamedTuple):
    """A config key whose value differs between recipe and run; `MISSING` if one side lacks it."""

    key: str
    recipe: Any
    run: Any


def differences(config: dict[str, Any]) -> list[Difference]:
    """Return the values that differ from those of the run's recipe, task, budget and protocol.

    Args:
        config: the run's resolved config.
    """
    return _differences(_nodes(_recipe(config)), _nodes(config))


def other_amount(config: dict[str, Any]) -> str | None:
    """Return how duration, early stop and data sizes differ from recipe, protocol and budget.

    Args:
        config: the run's resolved config.

    Returns:
        A text like `epochs=1 instead of epochs=10`; `None` if nothing differs.
    """
    planned, here = _amounts(_recipe(config)), _amounts(config)
    found = [
        f"{here[what]} instead of {planned[what]}"
        for what in planned
        if here.get(what, planned[what]) != planned[what]
    ]
    return ", ".join(found) or None


def command(config: dict[str, Any]) -> str:
    """Return the command line that trains the same run.

    Users copy the command, so it never holds text from the record that could run other code.

    Args:
        config: the run's resolved config.

    Raises:
        ConfigError: if no safe command trains this run; the message says why.
    """
    choices = _choices(config)
    words = [f"{name}={choices[name]}" for name in ("task", "model", "budget", "protocol")]
    for word in words:
        if not NAME.fullmatch(word.partition("=")[2]):
            raise ConfigError(f"{word!r} is no name that a command could choose")
    base, nodes = _nodes(_recipe(config)), _nodes(config)
    for group in FALLBACK:
        if not _continues(base[group], nodes[group]):
            chosen = [
                name for name in _names(group) if _continues(_read(group, name), nodes[group])
            ]
            if not chosen:
                target = nodes[group].get("_target_")
                raise ConfigError(f"no seqbench config has the {group} {target}")
            words.append(f"{group}={chosen[0]}")
            base[group] = _read(group, chosen[0])
    words.append(f"seed={_value(config.get('seed', 0))}")
    # A custom model or task is found by its name, in a --config-dir that the user fills in.
    own = [group for group in ("task", "model") if choices[group] not in _names(group)]
    for key, recipe, value in _differences(base, nodes):
        node = key.partition(".")[0]
        if key == f"{node}._target_" and node in own:
            continue
        if not KEY.fullmatch(key) or any(part[0] == "_" for part in key.split(".")):
            raise ConfigError(f"{key} is {value!r}, and not {recipe!r}: no command should say that")
        if value is not MISSING:
            words.append(f"{key}={_value(value)}")
    return shlex.join(["seqbench", "train", *(["--config-dir", "FOLDER"] if own else []), *words])


def _choices(config: dict[str, Any]) -> dict[str, str]:
    chosen = config.get("choices")
    found = {**chosen} if isinstance(chosen, dict) else {}
    found |= {"budget": config.get("budget"), "protocol": config.get("protocol")}
    return {name: str(found.get(name) or "") for name in ("task", "model", "budget", "protocol")}


def _recipe(config: dict[str, Any]) -> dict[str, Any]:
    """Return the config that the choices of a run imply; later layers override earlier ones."""
    choices = _choices(config)
    task, model, budget, protocol = choices.values()
    layers = [
        {"task": _read("task", task), "model": _read("model", model)},
        {"trainer": _read("trainer", "default")},
        _read("recipe", f"{task}_{model}"),
        _read("protocol", protocol),
        _read("protocol_for", f"{task}_{protocol}"),
        _read("protocol_for/pair", f"{task}_{model}_{protocol}"),
        _read("budget", budget),
        _read("budget_for", f"{task}_{budget}"),
    ]
    merged: dict[str, Any] = reduce(_merged, layers)
    for group, fallback in FALLBACK.items():
        merged[group] = merged.get("recipe", {}).get(group) or _read(group, fallback)
    return merged


def _amounts(config: dict[str, Any]) -> dict[str, str]:
    nodes = _nodes(config)
    trainer, task = nodes["trainer"], nodes["task"]
    sizes = {key: task.get(key, MISSING) for key in SIZES}
    sizes |= {"stop_when_solved": trainer.get("stop_when_solved", MISSING)}
    found = {key: f"{key}={_amount(value)}" for key, value in sizes.items() if _is_amount(value)}
    # Exactly one of the two is not null.
    for key in ("steps", "epochs"):
        if trainer.get(key) is not None and _is_amount(trainer[key]):
            found["duration"] = f"{key}={_amount(trainer[key])}"
    return found


def _is_amount(value: Any) -> bool:
    return value is None or isinstance(value, int | float)


def _amount(value: float | None) -> str:
    if value is None or isinstance(value, bool):
        return {None: "all", True: "true", False: "false"}[value]
    return str(plain_numbers(value))[:LONGEST]


@cache
def _names(group: str) -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in (CONFIG_FOLDER / group).glob("*.yaml")))


@cache
def _read(group: str, name: str) -> dict[str, Any]:
    # The name is untrusted: look it up among seqbench's configs, never build a path from it.
    if name not in _names(group):
        return {}
    path = CONFIG_FOLDER / group / f"{name}.yaml"
    return yaml.load(path.read_bytes(), Loader=YamlLoader)


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    result = dict(one)
    for key, value in other.items():
        known = result.get(key)
        both = isinstance(known, dict) and isinstance(value, dict)
        result[key] = _merged(known, value) if both else value  # type: ignore[arg-type]
    return result


def _nodes(config: dict[str, Any]) -> Nodes:
    kept = without_place(config)
    return {name: node if isinstance(node := kept.get(name), dict) else {} for name in NODES}


def _differences(recipe: Nodes, run: Nodes) -> list[Difference]:
    ours, theirs = flatten(recipe), flatten(run)
    return [
        Difference(key, ours.get(key, MISSING), theirs.get(key, MISSING))
        for key in dict.fromkeys([*ours, *theirs])
        if ours.get(key) != theirs.get(key) and not key.endswith("._partial_")
    ]


def _continues(node: dict[str, Any], run: dict[str, Any]) -> bool:
    """Return True if `run` has the target of `node` and at least its keys; values may differ."""
    return node.keys() <= run.keys() and node.get("_target_") == run.get("_target_")


def _value(value: Any) -> str:
    """Return a value in Hydra's override grammar.

    Raises:
        ConfigError: if the grammar cannot express the value safely.
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return f"[{','.join(map(_value, value))}]"
    if isinstance(value, str) and value.isprintable() and "${" not in value and value != "???":
        if BARE.fullmatch(value) and value.lower() not in NOT_TEXT:
            return value
        for quote in "'\"":
            if quote not in value and not value.endswith("\\"):
                return f"{quote}{value}{quote}"
    raise ConfigError(f"a command cannot hold the value {value!r}")
