"""Compose the configs of many jobs, each combination of choices once instead of once per seed."""

import re
from collections.abc import Iterable, Sequence

from seqbench.config import Config
from seqbench.config.compose import Composer
from seqbench.config.overrides import as_typed
from seqbench.errors import ConfigError


def compose_all(composer: Composer, overrides: Iterable[Sequence[str]]) -> list[Config]:
    """Return the config of each list of overrides.

    Of lists that differ in nothing but the seed, two are composed: if their configs differ in
    nothing but `seed`, the others follow.

    Raises:
        ConfigError: if overrides are invalid.
    """
    configs = []
    first: dict[tuple[str, ...], Config] = {}
    only_seed: dict[tuple[str, ...], bool] = {}
    for words in overrides:
        others, seed = without_seed(words)
        known = first.get(others)
        if seed is not None and known is not None and only_seed.get(others):
            configs.append(known | {"seed": seed})
            continue
        try:
            config = composer.compose(words)
        except ConfigError as error:
            raise ConfigError(f"{error} (in the job {' '.join(as_typed(words))})") from error
        if seed is not None and known is None:
            first[others] = config
        elif seed is not None and known is not None and known["seed"] != seed:
            only_seed.setdefault(others, known | {"seed": seed} == config)
        configs.append(config)
    return configs


def without_seed(words: Sequence[str]) -> tuple[tuple[str, ...], int | None]:
    """Return the overrides without `seed=N`, and N; `None` if there is not exactly one such."""
    found = [match for word in words if (match := re.fullmatch(r"\+*seed=(\d{1,18})", word))]
    if len(found) != 1:
        return tuple(words), None
    return tuple(word for word in words if word != found[0][0]), int(found[0][1])
