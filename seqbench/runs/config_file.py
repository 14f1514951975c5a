"""The configuration that a run keeps: config.yaml, plain data without any of YAML's tricks."""

import math
from pathlib import Path
from typing import Any

import yaml

from seqbench.errors import ConfigError
from seqbench.runs import atomic, foreign

# libyaml is ten times faster than PyYAML's own reader; not every build has it.
YamlLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Levels of lists and groups; a configuration of ours has five.
DEEPEST = 50
# Bytes; a configuration of ours has two thousand.
LARGEST = 2**20


class Dumper(yaml.SafeDumper):
    """Writes a value that stands in two places twice, rather than once with a reference to it."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def write_config(path: Path, config: dict[str, Any]) -> None:
    """Keep a configuration."""
    text = yaml.dump(config, Dumper=Dumper, sort_keys=False, allow_unicode=True)
    atomic.write(path, text.encode())


def read_config(path: Path) -> dict[str, Any]:
    """Read a configuration, whoever wrote it: texts, numbers, lists and groups of them.

    Raises:
        ConfigError: it cannot be read, or holds anything else.
    """
    try:
        if not path.is_file():
            raise ConfigError(f"there is no {path}")
        content = foreign.read(path, LARGEST)
        depth = 0
        # Before it is built: a few lines of references unfold to gigabytes, and what is nested too
        # deep ends the whole process.
        for event in yaml.parse(content, YamlLoader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST or isinstance(event, yaml.AliasEvent):
                raise ConfigError(f"cannot read {path}: nested too deep, or with references")
        config = yaml.load(content, YamlLoader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ConfigError(f"cannot read {path}: {reason}") from error
    if not isinstance(config, dict) or not is_plain(config):
        raise ConfigError(f"{path} holds no configuration")
    return config


def is_plain(value: object) -> bool:
    """Whether a value is what JSON knows, too: YAML has dates, sets, bytes and keys of any kind."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(is_plain, value))
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str | int)
