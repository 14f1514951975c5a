"""Filter runs with terms like `seed<3, model=tcn|gru, model.kernel_size>=7`.

A key is a dotted config key (`trainer.steps`) or a field of the record (`status`, `score`,
`parameters`, `metrics.test.mse`, `measured.device`). A run without the key does not match.
"""

import difflib
import json
import operator
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from seqbench.errors import ConfigError
from seqbench.results.collect import Unfinished
from seqbench.runs.record import Record, Score

Run = TypeVar("Run", bound=Record | Unfinished)

ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
TERM = re.compile(r"\s*([\w.-]+)\s*(<=|>=|!=|==|=|<|>)\s*(.*?)\s*", re.DOTALL)
# A comma ends a term only if another term follows it, so that a value may be a list.
BETWEEN_TERMS = re.compile(r",(?=\s*[\w.-]+\s*[<>=!])")

# Separators of other query languages, to explain the mistake: `and`, `&&`, or no comma.
ANOTHER = re.compile(r"\s(and|or|&&|\|\|)\s|\s[\w.-]+\s*[<>=!]", re.IGNORECASE)

MISSING = object()


def select(runs: Iterable[Run], where: str | None) -> list[Run]:
    """Return the runs that match every term of a filter.

    Raises:
        ConfigError: if the filter cannot be parsed, or names a key that no run has.
    """
    chosen = everyone = list(runs)
    for term, match in terms(where):
        if match is None:
            raise ConfigError(f"--where wants 'key op value, ...' as in 'seed<3', not '{term}'")
        key, symbol, text = match.groups()
        if ANOTHER.search(text):
            raise ConfigError(
                f"--where parts its terms by commas, as in 'seed<3, model=tcn|gru', not '{term}'"
            )
        if everyone and all(value_of(run, key) is MISSING for run in everyone):
            raise unknown_key(everyone[0], key)
        chosen = [run for run in chosen if holds(value_of(run, key), symbol, text)]
    return chosen


def terms(where: str | None) -> list[tuple[str, re.Match[str] | None]]:
    """Return each term of a filter with its match of key, operator and operand."""
    found = BETWEEN_TERMS.split(where) if where else []
    return [(term, TERM.fullmatch(term)) for term in found]


def unknown_key(run: Record | Unfinished, key: str) -> ConfigError:
    """Return the error for a key that no run has, with the nearest key of one of them."""
    near = difflib.get_close_matches(key, [*vars(run), *flatten(run.config)], n=1)
    hint = f" (did you mean '{near[0]}'?)" if near else ""
    return ConfigError(f"no run has a key '{key}'{hint}")


def holds(value: Any, symbol: str, text: str) -> bool:
    """Return True if a run's value satisfies a term's operator and operand.

    Args:
        value: the run's value; `MISSING` never satisfies a term.
        symbol: the operator.
        text: the operand as typed; `|` separates alternatives of `=` and `!=`.

    Raises:
        ConfigError: if `<`, `<=`, `>` or `>=` has an operand that is not a number.
    """
    if value is MISSING:
        return False
    if symbol in ("=", "==", "!="):
        is_one = any(value == _read_as(value, one.strip()) for one in text.split("|"))
        return is_one != (symbol == "!=")
    wanted = _read_as(value, text)
    if isinstance(wanted, str):
        try:
            wanted = float(wanted)
        except ValueError:
            raise ConfigError(f"--where cannot order by '{symbol} {text}': not a number") from None
    if not isinstance(value, int | float) or not isinstance(wanted, int | float):
        return False
    return ORDERS[symbol](value, wanted)


def _read_as(value: Any, text: str) -> Any:
    """Return the operand parsed as JSON; as text if `value` is a text or it is not JSON."""
    if isinstance(value, str):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def value_of(run: Record | Unfinished, key: str) -> Any:
    """Return a run's value of a dotted key, from config, defaults or record; else `MISSING`."""
    value = _descend(run.config, key)
    if value is MISSING and isinstance(run, Record):
        value = _descend(run.defaults, key)
    # `model` is a node in the config and a name in the record: use the name.
    if value is not MISSING and not isinstance(value, dict):
        return value
    value = _descend(vars(run), key)
    return value.value if isinstance(value, Score) else value


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return dotted key -> value for all leaves of a nested config."""
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            leaves |= flatten(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def _descend(node: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            return MISSING
        node = node[part]
    return node
