"""Read the config of a run folder, and reject one that would build untrusted code."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seqbench.config import Config
from seqbench.config.check import check
from seqbench.config.remembered import is_remembered
from seqbench.config.schema import import_target
from seqbench.errors import ConfigError
from seqbench.runs.config_file import read_config

# Packages whose code a run folder's config may build: only those that runs consist of, since other
# parts of seqbench, such as its commands, could do harm.
TRUSTED = ("seqbench.models", "seqbench.tasks", "seqbench.training", "torch.optim")


def read(path: Path, also: Sequence[str] = ()) -> Config:
    """Read and check a run's config file, without trackers and data folder.

    Args:
        path: the run's `config.yaml`.
        also: packages or modules that the user trusts besides `TRUSTED`.

    Raises:
        ConfigError: if the file cannot be read, names untrusted code, or fails `check`.
    """
    config = read_config(path)
    trust(config, also)
    # The author of a foreign config must not choose where datasets and trackers write or send.
    config |= {"tracker": {}, "data_dir": None}
    check(config)
    return config


def trust(config: dict[str, Any], also: Sequence[str] = ()) -> None:
    """Raise an error if a run folder's config names code that is not trusted.

    A node that the user has typed on this machine is trusted as it was then, see `remembered`.

    Args:
        config: the folder's config.
        also: packages or modules that the user trusts too.

    Raises:
        ConfigError: if a `_target_` is neither in `TRUSTED` nor in `also`, or if a value is an
            unresolved reference.
    """
    trusted = (*TRUSTED, *also)

    def is_trusted(name: str) -> bool:
        return any(name == prefix or name.startswith(f"{prefix}.") for prefix in trusted)

    def walk(value: Any, remembered: bool, key: str) -> None:
        if isinstance(value, dict):
            target = value.get("_target_")
            if target is not None and not remembered:
                # Check the name before importing it, then the object found, which may be of
                # another module.
                name = str(target)
                if is_trusted(name):
                    found = import_target(name, key)
                    parts = (getattr(found, part, "") for part in ("__module__", "__qualname__"))
                    name = ".".join(map(str, parts))
                if not is_trusted(name):
                    raise ConfigError(
                        f"the run names {target}, which was not trained here as it is now: "
                        f"add --trust {name} to build it"
                    )
            for item in value.values():
                walk(item, remembered, key)
        elif isinstance(value, str) and ("${" in value or value == "???"):
            # A run's own config has no references: they are resolved before it is written. Hydra
            # would resolve this one when it builds: it could read the environment, or become a
            # node that was not checked.
            raise ConfigError(f"the run's configuration refers to something outside: {value!r}")
        elif isinstance(value, list):
            for item in value:
                walk(item, remembered, key)

    for key, node in config.items():
        walk(node, is_remembered(node), key)
