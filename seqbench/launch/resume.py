"""Read the config of a run that is to be resumed."""

from collections.abc import Sequence
from pathlib import Path

from seqbench.config import Config
from seqbench.config.moved import with_data_at
from seqbench.config.trust import read
from seqbench.errors import ConfigError
from seqbench.results.collect import find_run
from seqbench.runs.identity import user_code_hashes
from seqbench.runs.run import Run


def config_to_resume(run: str, overrides: Sequence[str], trust: Sequence[str]) -> Config:
    """Return the config of a run, with the output folder that the run is in.

    Args:
        run: run id, a prefix of it, or a path.
        overrides: where the data are now, as for `with_data_at`.
        trust: packages that the run may import besides seqbench.

    Raises:
        ConfigError: if there is no such run, another override is given, the config is invalid, or
            it belongs to another run than its folder.
        DataError: if an override names a file that cannot be read.
    """
    folder = find_run(run, Path("outputs"))
    config = with_data_at(read(folder / "config.yaml", trust), overrides)
    folder = folder.resolve()
    config["output_dir"] = str(folder.parents[min(3, len(folder.parents) - 1)])
    if Run.of(config).folder.resolve() != folder:
        reason = f"{folder / 'config.yaml'} is not the configuration of this folder's run"
        if custom := " and ".join(config[node]["_target_"] for node in user_code_hashes(config)):
            reason += f", or the file of {custom} was edited, which makes another run"
        raise ConfigError(reason)
    return config
