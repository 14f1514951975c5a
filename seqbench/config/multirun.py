"""Sweep over overrides with Hydra: its sweeper makes the jobs, its launcher runs them."""

from collections.abc import Sequence
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from seqbench.config.choices import CONFIG_FOLDER
from seqbench.config.compose import FOR_A_SEARCH, Composer, explained
from seqbench.config.overrides import for_hydra
from seqbench.errors import ConfigError


def multirun(composer: Composer, overrides: Sequence[str], task: Any) -> Any:
    """Run a sweep.

    Args:
        composer: has the choices that overrides may name.
        overrides: as on the command line: `seed=0,1,2`.
        task: object that Hydra passes to the launcher as its task function.

    Returns:
        The result of Hydra's `multirun`.

    Raises:
        ConfigError: if an override names something that does not exist, or has the wrong type.
    """
    words = for_hydra(overrides, composer.config_dir)
    parsed = composer.parsed(words)
    composer.check_choices(parsed)
    sweepers = [word for word in words if word.startswith("hydra/sweeper=")]
    if sweepers in ([], ["hydra/sweeper=basic"]):
        for item in parsed:
            typed = str(item.input_line).lstrip("+").replace("hydra.sweeper.", "search.")
            if item.is_interval_sweep() or typed.startswith("search."):
                raise ConfigError(f"{typed} {FOR_A_SEARCH}")
    version.setbase("1.3")
    loader = ConfigLoaderImpl(create_config_search_path(str(CONFIG_FOLDER)))
    loader.repository.sources.insert(0, composer.source)
    try:
        return Hydra("seqbench", loader).multirun(
            "sweep", task, words, with_log_configuration=False
        )
    except (HydraException, OmegaConfBaseException) as error:
        raise explained(error) from error
