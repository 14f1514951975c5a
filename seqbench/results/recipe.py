"""Compare a run with its recipe: the config of its task, model, budget and protocol."""

from typing import Any, NamedTuple

from seqbench.config.precedence import baseline
from seqbench.results.where import MISSING, flatten
from seqbench.runs.identity import plain_numbers, without_environment
from seqbench.runs.source_hash import NODES

# Data sizes in a task's config; `None` means all data.
SIZES = ("train_size", "valid_size", "eval_size")
STARTED = "started from other weights"
# Characters of a number.
MAX_DIGITS = 20

Nodes = dict[str, dict[str, Any]]


class Difference(NamedTuple):
    """A config key whose value differs between recipe and run; `MISSING` if one side lacks it."""

    key: str
    recipe: Any
    run: Any


def choices(config: dict[str, Any]) -> dict[str, str]:
    """Return the names of a run's task, model, budget and protocol; empty ones if unknown."""
    chosen = config.get("choices")
    found = {**chosen} if isinstance(chosen, dict) else {}
    found |= {"budget": config.get("budget"), "protocol": config.get("protocol")}
    return {name: str(found.get(name) or "") for name in ("task", "model", "budget", "protocol")}


def nodes_of(config: dict[str, Any]) -> Nodes:
    """Return the nodes of a run's config, without keys that do not change its result."""
    kept = without_environment(config)
    return {name: node if isinstance(node := kept.get(name), dict) else {} for name in NODES}


def differences(config: dict[str, Any]) -> list[Difference]:
    """Return the values that differ from those of the run's recipe, task, budget and protocol.

    Args:
        config: the run's resolved config.
    """
    return compare(nodes_of(baseline(**choices(config))), nodes_of(config))


def compare(recipe: Nodes, run: Nodes) -> list[Difference]:
    """Return the values that differ between two configs."""
    planned, here = flatten(recipe), flatten(run)
    return [
        Difference(key, planned.get(key, MISSING), here.get(key, MISSING))
        for key in dict.fromkeys([*planned, *here])
        if planned.get(key) != here.get(key) and not key.endswith("._partial_")
    ]


def amount_differences(config: dict[str, Any], other_protocol: str | None = None) -> dict[str, str]:
    """Return how duration, early stop and data sizes differ from recipe, protocol and budget.

    A run that continues another one differs, too: its learning rates are not those of one training.
    So does one that starts from the weights of another.

    Args:
        config: the run's resolved config.
        other_protocol: an amount that this protocol sets is no difference, either.

    Returns:
        The amount -> a text, as in `{"duration": "epochs=1 instead of epochs=10"}`.
    """
    chosen, here = choices(config), _amounts(config)
    planned = _amounts(baseline(**chosen))
    usual = [planned]
    if other_protocol is not None:
        usual.append(_amounts(baseline(**chosen | {"protocol": other_protocol})))
    found = {
        what: f"{here[what]} instead of {planned[what]}"
        for what in planned
        if what in here and here[what] not in [amounts.get(what) for amounts in usual]
    }
    if "continues" in config:
        found["continues"] = "continued from another run"
    if "init_sha256" in config:
        found["start"] = STARTED
    return found


def _amounts(config: dict[str, Any]) -> dict[str, str]:
    nodes = nodes_of(config)
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
    return str(plain_numbers(value))[:MAX_DIGITS]
