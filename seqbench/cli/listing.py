"""`seqbench list`: list the available models, tasks, datasets and other choices."""

import re
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Annotated

import typer

from seqbench.cli.sweep import ConfigDir
from seqbench.errors import ConfigError
from seqbench.wording import plain, suggestion

KINDS = (
    "models",
    "tasks",
    "optimizers",
    "schedules",
    "recipes",
    "budgets",
    "protocols",
    "papers",
    "datasets",
)
# Minimum room for a description in a terminal, in characters.
NARROWEST = 30


def complete_kind(incomplete: str) -> list[str]:
    """Return the kinds that begin with a text, for the shell."""
    return [kind for kind in KINDS if kind.startswith(incomplete)]


def listing(
    kind: Annotated[
        str,
        typer.Argument(metavar="KIND", help=f"{', '.join(KINDS)}.", autocompletion=complete_kind),
    ],
    config_dir: ConfigDir = None,
) -> None:
    """List the available choices of a kind, with descriptions.

    A line each; a terminal wraps long ones below their description.
    """
    if kind not in KINDS:
        raise ConfigError(f"nothing to list of kind '{kind}'{suggestion(kind, KINDS)}")
    if kind == "datasets":
        from seqbench.datasets.catalog import DATASETS

        rows = [(n, f"{data.description}; terms: {data.licence}") for n, data in DATASETS.items()]
    else:
        from seqbench.config.choices import folders, plugins

        group = kind.removesuffix("s")
        described = {name: f"plug-in: {node['_target_']}" for name, node in plugins(group).items()}
        describe = source if kind == "recipes" else header
        for folder in reversed(folders(config_dir)):  # the user's last: it replaces seqbench's
            for path in (folder / group).glob("*.yaml"):
                described[path.stem] = describe(path)
        rows = sorted(described.items())
    width = max((len(name) for name, _ in rows), default=0)
    for name, text in rows:
        line = f"{name:<{width}}  {text}".rstrip()
        if sys.stdout.isatty():
            room = max(shutil.get_terminal_size().columns, width + NARROWEST)
            line = textwrap.fill(
                line, room, subsequent_indent=" " * (width + 2), break_on_hyphens=False
            )
        print(line)


def header(path: Path) -> str:
    """Return the first sentence of a YAML file's opening comment, without its full stop."""
    lines = []
    for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines():
        if line.startswith("# @package"):
            continue
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return plain(re.split(r"(?<!et al)\. ", " ".join(lines))[0].rstrip("."))


def source(path: Path) -> str:
    """Return the source of a recipe's settings; the file's header if it names none."""
    from seqbench.config.precedence import layer_of
    from seqbench.config.yaml_file import read_yaml

    recipe = layer_of(read_yaml(path).content, "_global_").get("recipe")
    named = recipe.get("source") if isinstance(recipe, dict) else None
    return header(path) if named is None else plain(str(named))
