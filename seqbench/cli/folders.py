"""The folders that commands read runs from, and the files that they write."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seqbench.errors import ConfigError

if TYPE_CHECKING:
    from seqbench.results.collect import Collected

Folders = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[PATH]...", help="Folders with runs; all below --output-dir if none is named."
    ),
]


def to_read(folders: list[Path] | None, output_dir: Path) -> list[Path]:
    """Return the named folders, or `output_dir/runs` if none is named.

    Raises:
        ConfigError: if a named folder does not exist.
    """
    for folder in folders or []:
        if not folder.exists():
            raise ConfigError(f"there is no folder '{folder}'")
    return folders or [output_dir / "runs"]


def collected(folders: list[Path] | None, output_dir: Path) -> "Collected":
    """Read all runs in the named folders, and say on stderr which cannot be read.

    Raises:
        ConfigError: if a named folder does not exist.
    """
    from seqbench.results.collect import collect

    found = collect(to_read(folders, output_dir))
    for line in found.unreadable:
        typer.echo(f"left out: {line}", err=True)
    return found


def to_write(output: Path | None, default: Path) -> Path:
    """Return the file to write: the named one, or else a new file with the default name.

    Raises:
        ConfigError: if the default file exists, or the file cannot be written.
    """
    file = output or default
    if output is None and file.exists():
        raise ConfigError(f"{file} is there already: -o {file} replaces it")
    if not file.parent.is_dir() or file.is_dir():
        raise ConfigError(f"cannot write {file}: no folder for it, or a folder itself")
    return file
