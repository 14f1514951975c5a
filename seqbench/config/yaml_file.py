"""Read the YAML file of a choice; errors name file and line."""

import re
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from seqbench.errors import ConfigError, first_line
from seqbench.runs.config_file import YamlLoader

# Where the content goes: as in Hydra, one of the comments before the first key says so.
HEADER = re.compile(r"(?:\s*#[^\n]*\n)*?\s*#\s*@package\s+(\S+)")
TEXT, MERGE, FLOAT = (f"tag:yaml.org,2002:{kind}" for kind in ("str", "merge", "float"))


class Choice(NamedTuple):
    """The values that a choice sets.

    Attributes:
        content: parsed YAML, mostly a dict; shared, so it must not be changed.
        package: dotted key below which the content goes, `_global_` for the top level; `None`: the
            group's name.
    """

    content: Any
    package: str | None = None


class Loader(YamlLoader):  # type: ignore[misc, valid-type]
    """A YAML loader that refuses duplicate keys, and keys that YAML does not read as text."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            problem = None
            if isinstance(key, yaml.ScalarNode):
                if key.tag not in (TEXT, MERGE):
                    problem = f"YAML does not read the key {key.value} as text: put it in quotes"
                elif key.value in seen:
                    problem = f"found duplicate key {key.value}"
                seen.add(key.value)
            if problem:
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return mapping


# As in Hydra's values: 1e-3 is a number, and a date is text.
Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in YamlLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(
    FLOAT, re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_yaml(path: Path) -> Choice:
    """Return the content of a file; an empty file holds an empty dict.

    Raises:
        ConfigError: if it is not a UTF-8 text, or not YAML with text as keys.
        OSError: if it cannot be read.
    """
    status = path.stat()
    return _read(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1024)
def _read(path: Path, modified: int, size: int) -> Choice:
    try:
        text = path.read_bytes().decode("utf-8-sig")
        content = yaml.load(text, Loader)
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not a text in UTF-8") from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{line}: {error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: {first_line(error)}") from error
    header = HEADER.match(text)
    return Choice({} if content is None else content, header[1] if header else None)
