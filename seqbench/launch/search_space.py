"""Turn overrides with several values into the Optuna distributions that a search draws from."""

from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from seqbench.config.choices import choices_of, read_choice
from seqbench.errors import ConfigError
from seqbench.wording import suggestion


def space_overrides(space: str | None, model: str, config_dir: str | None) -> list[str]:
    """Return the overrides of a search space.

    Args:
        space: a file in `search_space/`, or `none`; `None`: the one named like the model, if any.
        model: name of the model.
        config_dir: the user's folder of choices.

    Raises:
        ConfigError: if there is no such search space, or it holds no overrides.
    """
    known = choices_of("search_space", config_dir)
    name = model if space is None else space
    if name not in known:
        if space in (None, "none"):
            return []
        raise ConfigError(f"no search space named '{name}'{suggestion(name, known)}")
    content = read_choice("search_space", name, config_dir)
    if not isinstance(content, dict):
        raise ConfigError(f"search space {name} must hold one override a line: model.key: 1,2")
    return [f"{key}={value}" for key, value in content.items()]


def dimensions(typed: list[Override], space: list[str]) -> dict[str, BaseDistribution]:
    """Return key -> distribution of what is searched.

    Args:
        typed: overrides from the command line; they replace those of the search space.
        space: overrides of the search space.

    Raises:
        ConfigError: if an override cannot be searched.
    """
    parsed = OverridesParser.create().parse_overrides(space)
    searched = {plain_key(override): override for override in parsed}
    for override in typed:
        searched.pop(plain_key(override), None)
        if override.is_sweep_override():
            searched[plain_key(override)] = override
    return {key: dimension(override) for key, override in searched.items()}


def plain_key(override: Override) -> str:
    """Return the key of an override without leading `+`."""
    return str(override.get_key_element()).lstrip("+")


def dimension(override: Override) -> BaseDistribution:
    """Return the distribution of an override.

    Raises:
        ConfigError: if its kind of sweep cannot be searched, or it holds no value.
    """
    try:
        found = distribution(override)
    except ValueError as error:
        raise ConfigError(f"{override.input_line} cannot be searched: {error}") from error
    if found is None:
        raise ConfigError(f"{override.input_line} cannot be searched")
    return found


def distribution(override: Override) -> BaseDistribution | None:
    """Return the distribution of an override; `None` for a kind of sweep without one.

    Raises:
        ValueError: if it holds no value.
    """
    value: Any = override.value()
    log = "log" in getattr(value, "tags", ())
    if isinstance(value, IntervalSweep):
        low: Any = value.start
        high: Any = value.end
        if isinstance(low, int) and isinstance(high, int):  # as in int(interval(4,16))
            return IntDistribution(low, high, log=log)
        return FloatDistribution(float(low), float(high), log=log)
    if isinstance(value, RangeSweep):
        first, last, step = float(value.start or 0), float(value.stop or 0), float(value.step)
        if first.is_integer() and last.is_integer() and step.is_integer():
            values = range(int(first), int(last), int(step))
            return IntDistribution(min(values), max(values), step=abs(values.step))
    if override.is_discrete_sweep():
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    return None


def overrides(params: dict[str, Any]) -> list[str]:
    """Return a trial's parameters as overrides; floats are rounded to four significant digits."""
    return [
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in params.items()
    ]


def first_values(searched: dict[str, BaseDistribution]) -> list[str]:
    """Return the lowest or first value of each hyperparameter as overrides."""
    values: dict[str, Any] = {}
    for key, distribution in searched.items():
        if isinstance(distribution, CategoricalDistribution):
            values[key] = distribution.choices[0]
        elif isinstance(distribution, FloatDistribution | IntDistribution):
            values[key] = distribution.low
    return overrides(values)
