"""Which folders a command reads runs from: those that are named, else the output folder's."""

from pathlib import Path
from typing import Annotated

import typer

from seqbench.errors import ConfigError

Folders = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[PATH]...", help="Folders with runs; all below --output-dir if none is named."
    ),
]


def to_read(folders: list[Path] | None, output_dir: Path) -> list[Path]:
    """The folders to look through.

    Raises:
        ConfigError: one that was named is not there.
    """
    for folder in folders or []:
        if not folder.exists():
            raise ConfigError(f"there is no folder '{folder}'")
    return folders or [output_dir / "runs"]
