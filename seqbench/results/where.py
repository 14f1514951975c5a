"""Plain filters on runs: `seed<3, model=tcn|gru, model.kernel_size>=7`.

A key is one of the configuration's, with dots (`trainer.steps`), or one of the record's (`status`,
`score`, `parameters`, `metrics.test.mse`, `measured.device`). A run without the key does not match.
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
# A comma ends a term only where another one begins, so that a value may be a list.
BETWEEN_TERMS = re.compile(r",(?=\s*[\w.-]+\s*[<>=!])")

# What people write between terms in other languages.
ANOTHER = re.compile(r"\s(and|or|&&|\|\|)\s|\s[\w.-]+\s*[<>=!]", re.IGNORECASE)

MISSING = object()


def select(runs: Iterable[Run], where: str | None) -> list[Run]:
    """The runs that match every term of a filter.

    Raises:
        ConfigError: the filter cannot be read, or names a key that no run has.
    """
    chosen = everyone = list(runs)
    for term in BETWEEN_TERMS.split(where) if where else []:
        match = TERM.fullmatch(term)
        if match is None:
            raise ConfigError(f"--where wants 'key op value, ...' as in 'seed<3', not '{term}'")
        key, symbol, text = match.groups()
        if ANOTHER.search(text):
            raise ConfigError(
                f"--where parts its terms by commas, as in 'seed<3, model=tcn|gru', not '{term}'"
            )
        if everyone and all(value_of(run, key) is MISSING for run in everyone):
            near = difflib.get_close_matches(key, keys_of(everyone[0]), n=1)
            hint = f" (did you mean '{near[0]}'?)" if near else ""
            raise ConfigError(f"no run has a key '{key}'{hint}")
        chosen = [run for run in chosen if holds(value_of(run, key), symbol, text)]
    return chosen


def holds(value: Any, symbol: str, text: str) -> bool:
    """Whether `value`, as found in a run, stands in this relation to what was typed.

    Raises:
        ConfigError: an order is asked for of what is no number.
    """
    if value is MISSING:
        return False
    if symbol in ("=", "==", "!="):
        is_one = any(value == read_as(value, one.strip()) for one in text.split("|"))
        return is_one != (symbol == "!=")
    wanted = read_as(value, text)
    if isinstance(wanted, str):
        try:
            wanted = float(wanted)
        except ValueError:
            raise ConfigError(f"--where cannot order by '{symbol} {text}': not a number") from None
    if not isinstance(value, int | float) or not isinstance(wanted, int | float):
        return False
    return ORDERS[symbol](value, wanted)


def read_as(value: Any, text: str) -> Any:
    """What was typed, as the kind of thing that it is held against."""
    if isinstance(value, str):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def value_of(run: Record | Unfinished, key: str) -> Any:
    """What stands under a key with dots, or `MISSING`; the configuration comes first."""
    value = _descend(run.config, key)
    # `model` is a whole node of the configuration and a name in the record: the name is meant.
    if value is not MISSING and not isinstance(value, dict):
        return value
    value = _descend(vars(run), key)
    return value.value if isinstance(value, Score) else value


def keys_of(run: Record | Unfinished) -> list[str]:
    """The keys that a filter may name, for the near miss."""
    return [*vars(run), *flatten(run.config)]


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of a nested configuration, by their keys with dots."""
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
