"""Build the objects that the nodes of a config describe."""

from typing import Any

from hydra.utils import instantiate

from seqbench.config import Config
from seqbench.errors import ConfigError, RunError, SeqbenchError, first_line, is_out_of_memory
from seqbench.runs.defaults import changed_defaults


def build(name: str, config: Config, *args: Any, **kwargs: Any) -> Any:
    """Build the object that a node describes.

    Args:
        name: key of the node in `config`.
        config: a checked config, or a part of one that contains the node.
        *args: arguments that seqbench supplies by position.
        **kwargs: arguments that seqbench supplies by name.

    Raises:
        ConfigError: if the constructor rejects its values.
        RunError: if the object does not fit into memory.
        OSError: if the constructor raises one.
    """
    node = changed_defaults(config[name]["_target_"]) | config[name]
    try:
        built = instantiate(node, *args, _convert_="all", _partial_=False, **kwargs)
    except SeqbenchError:
        raise
    except Exception as error:
        cause = error.__cause__ or error
        if isinstance(cause, SeqbenchError):
            raise cause from error
        if isinstance(cause, OSError):
            raise cause from error
        if is_out_of_memory(cause):
            raise RunError(f"out of memory: the {name} does not fit; try smaller sizes") from error
        kind = "" if isinstance(cause, (ValueError, RuntimeError)) else f"{type(cause).__name__}: "
        raise ConfigError(f"{name}: {kind}{first_line(cause)}") from error
    return built
