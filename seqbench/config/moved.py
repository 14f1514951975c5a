"""Change the data paths of a saved run's config; its run id stays the same."""

from collections.abc import Sequence

from seqbench.config import Config
from seqbench.config.compose import Composer
from seqbench.config.overrides import quoted
from seqbench.errors import ConfigError
from seqbench.runs.identity import FILES
from seqbench.user_files import check_digest, expand_home
from seqbench.wording import plain

DATA_KEYS = ("data_dir", *(f"task.{name}" for name in FILES))


def with_data_at(config: Config, overrides: Sequence[str]) -> Config:
    """Return a run's config with the data paths that the user gives.

    Args:
        config: the config of a run folder.
        overrides: `data_dir=FOLDER`, `task.path=FILE` and `task.test_path=FILE`; without them the
            config is returned.

    Raises:
        ConfigError: if another key is given, the task reads no file that a digest identifies, or
            the file is not the one that the run was trained on.
        DataError: if the file cannot be read.
    """
    for word in overrides:
        key, equals, typed = word.partition("=")
        if key not in DATA_KEYS or not equals:
            others = [
                place for place in DATA_KEYS[2:] if place.removeprefix("task.") in config["task"]
            ]
            places = " or ".join(f"{place}=" for place in (*DATA_KEYS[:2], *others))
            raise ConfigError(
                f"expected {places}, got '{plain(word)}': a "
                "saved run keeps its configuration, except for the place of its data"
            )
        [parsed] = Composer().parsed([f"{key}={quoted(typed)}"])
        value = str(parsed.value()) if typed not in ("", "null") else None
        if key == "data_dir":
            config = config | {"data_dir": value}
            continue
        name = key.removeprefix("task.")
        digest = config["task"].get(FILES[name])
        if value is None:
            raise ConfigError(f"expected {key}=FILE, got no file")
        if not isinstance(digest, str):
            raise ConfigError(f"this run's task reads no such file: omit {key}=")
        check_digest(value, digest, key)
        config = config | {"task": config["task"] | {name: str(expand_home(value).absolute())}}
    return config
