"""Check a config: its keys, types and ranges, before anything is built."""

import re
from typing import Any

from seqbench.config import Config
from seqbench.config.compression import check_compression
from seqbench.config.messages import SYNONYMS, unknown_key_error
from seqbench.config.schema import (
    NODES,
    as_integer,
    check_encoding,
    check_node,
    check_value,
    integers_in,
)
from seqbench.errors import ConfigError
from seqbench.runs.identity import RUN_ID

# Root keys that are not nodes of `NODES`, and their types.
VALUES: dict[str, Any] = {
    "choices": dict[str, str],
    "seed": int,
    "device": str,
    "threads": int | None,
    "data_dir": str | None,
    "output_dir": str,
    "budget": str,
    "protocol": str,
    "recipe": dict[str, Any],
    "tracker": dict[str, Any],
}
# Root keys that only some configs have: a continuation has the id of its parent, a run that starts
# from other weights their file, and a compressed one says how it is made smaller.
OPTIONAL: dict[str, Any] = {
    "continues": str,
    "init_from": str,
    "init_sha256": str,
    "init_run": str,
    "init_freeze": list[str],
    "init_lr_scale": float,
    "compress": dict[str, Any],
}
# Keys that a recipe may have under `recipe`.
RECIPE = ("source", "expected", "optimizer", "schedule")
# torch crashes if it is set to use tens of thousands of threads.
MAX_THREADS = 1024
MAX_LR_SCALE = 1000


def with_integers(config: Config) -> Config:
    """Return a config with whole floats, such as 1e4, as ints where an option takes ints only."""
    values = {key: as_integer(config[key], VALUES[key]) for key in VALUES if key in config}
    return config | values | {key: integers_in(config[key], key) for key in NODES if key in config}


def check(config: Config) -> None:
    """Check a config against the signatures of what it builds.

    Raises:
        ConfigError: if a key is unknown or missing, or a value has the wrong type or is out of
            range; in one line.
    """
    for key, value in config.items():
        if hint := (VALUES | OPTIONAL).get(key):
            check_value(key, value, hint)
        elif key not in NODES:
            nodes = [node for node in NODES if isinstance(config.get(node), dict)]
            name = SYNONYMS.get(key, key)
            within = [f"'{n}.{name}'" for n in nodes if name in config[n] and name[:1] != "_"]
            if within:
                raise ConfigError(f"no key '{key}' (did you mean {' or '.join(within)}?)")
            raise unknown_key_error(key, [*VALUES, *OPTIONAL, *NODES])
    for key in [*VALUES, *NODES]:
        if key not in config:
            raise ConfigError(f"the configuration has no '{key}'")
    check_encoding(config)
    for key in config["recipe"]:
        if key not in RECIPE:
            raise unknown_key_error(key, RECIPE, "recipe.")
    for key in NODES:
        check_node(key, config[key])
    for name, node in config["tracker"].items():
        check_node(f"tracker.{name}", node)
    if not 0 <= config["seed"] < 2**63:
        raise ConfigError(f"seed must be in [0, 2^63), not {config['seed']}")
    if not re.fullmatch(r"auto|cpu|cuda(:(0|[1-9]\d?))?", config["device"]):
        name = config["device"]
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:N, not '{name}'")
    if config["threads"] is not None and not 1 <= config["threads"] <= MAX_THREADS:
        raise ConfigError(f"threads must be 1 to {MAX_THREADS}, not {config['threads']}")
    if not RUN_ID.fullmatch(config.get("continues", "0" * 12)):
        raise ConfigError(f"continues must be a run id, 12 hex digits, not {config['continues']!r}")
    scale = config.get("init_lr_scale", 1.0)
    if not 0 <= scale <= MAX_LR_SCALE:
        raise ConfigError(f"init_lr_scale must be in [0, {MAX_LR_SCALE}], not {scale}")
    check_compression(config)
    for key in ("task", "model"):
        name = config["choices"].get(key, "")
        if not name or not name.isprintable():
            raise ConfigError(f"choices.{key} must be the name of a {key}, not {name!r}")
