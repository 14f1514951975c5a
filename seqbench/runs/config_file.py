"""Read and write a run's config.yaml: plain data, without YAML's aliases and special types."""

import math
from pathlib import Path
from typing import Any

import yaml

from seqbench.errors import ConfigError, first_line
from seqbench.runs import atomic, foreign

# libyaml is ten times faster than PyYAML's Python parser; not every build has it.
YamlLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Levels of nested lists and mappings; a config that seqbench writes has five.
MAX_DEPTH = 50
# Bytes; a config that seqbench writes has two thousand.
MAX_BYTES = 2**20


class Dumper(yaml.SafeDumper):
    """A YAML writer that repeats a shared value instead of writing an alias."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def write_config(path: Path, config: dict[str, Any]) -> None:
    """Write a config to a YAML file, atomically."""
    text = yaml.dump(config, Dumper=Dumper, sort_keys=False, allow_unicode=True)
    atomic.write(path, text.encode())


def read_config(path: Path) -> dict[str, Any]:
    """Read a config from a file that may come from an untrusted source.

    Raises:
        ConfigError: if the file cannot be read, or holds more than a mapping of plain values (see
            `is_plain`).
    """
    try:
        if not path.is_file():
            raise ConfigError(f"there is no {path}")
        content = foreign.read(path, MAX_BYTES)
        depth = 0
        # Check before loading: a few lines of aliases expand to gigabytes, and nesting that is too
        # deep crashes the process.
        for event in yaml.parse(content, YamlLoader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH or isinstance(event, yaml.AliasEvent):
                raise ConfigError(f"cannot read {path}: nested too deep, or with aliases")
        config = yaml.load(content, YamlLoader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read {path}: {first_line(error)}") from error
    if not isinstance(config, dict) or not is_plain(config):
        raise ConfigError(f"{path} holds no configuration")
    return config


def is_plain(value: object) -> bool:
    """Return True if JSON can hold the value: YAML also has dates, sets, bytes and other keys."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(is_plain, value))
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str | int)
