"""Read the config of a run that is to be resumed or continued."""

from collections.abc import Sequence
from pathlib import Path

from seqbench.config import Config
from seqbench.config.compose import Composer
from seqbench.config.moved import DATA_KEYS, with_data_at
from seqbench.config.trust import read
from seqbench.errors import ConfigError
from seqbench.experiment.continuation import LENGTH, check_completed
from seqbench.runs.find import find_run
from seqbench.runs.identity import user_code_hashes
from seqbench.runs.run import Run
from seqbench.wording import plain, suggestion

# What `--resume` takes to continue a run: besides `LENGTH`, options that do not change its result.
CONTINUING = [f"trainer.{name}" for name in (*LENGTH, "log_every", "checkpoint_every")]


def config_to_resume(run: str, overrides: Sequence[str], trust: Sequence[str]) -> Config:
    """Return the config of a run, or of its continuation, with the output folder that it is in.

    Args:
        run: run id, a prefix of it, or a path.
        overrides: where the data are now, as for `with_data_at`; and keys in `CONTINUING`, with
            which the config is that of a continuation.
        trust: packages that the run may import besides seqbench.

    Raises:
        ConfigError: if there is no such run, another override is given, the config is invalid, or
            it belongs to another run than its folder; or if a run that is not completed is to be
            continued.
        DataError: if an override names a file that cannot be read.
    """
    keys = {word: word.partition("=")[0].lstrip("+") for word in overrides}
    for key in keys.values():
        if key == "output_dir":
            raise ConfigError("--resume takes the path of a run in another output_dir: FOLDER/ID")
        if key not in (*DATA_KEYS, *CONTINUING):
            raise ConfigError(
                f"--resume keeps the settings of a run, and takes no {plain(key)}"
                f"{suggestion(key, [*DATA_KEYS, *CONTINUING])}"
            )
    folder = find_run(run, Path("outputs"))
    length = [word for word, key in keys.items() if key in CONTINUING]
    places = [word for word, key in keys.items() if key in DATA_KEYS]
    config = with_data_at(read(folder / "config.yaml", trust), places)
    folder = folder.resolve()
    config["output_dir"] = str(Run(folder).output_dir or folder.parent)
    if Run.of(config).folder.resolve() != folder:
        reason = f"{folder / 'config.yaml'} is not the configuration of this folder's run"
        if custom := " and ".join(config[node]["_target_"] for node in user_code_hashes(config)):
            reason += f", or the file of {custom} was edited, which makes another run"
        raise ConfigError(reason)
    if not length:
        return config
    check_completed(Run(folder))
    return Composer().changed(config | {"continues": folder.name}, length)
