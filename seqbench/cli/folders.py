"""Define the options of commands that read runs, and collect these runs."""

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
OutputDir = Annotated[
    Path, typer.Option(help="Where runs are; also found from inside this folder.")
]
RUN_HELP = "A run's id or a prefix of it, FOLDER/ID, or the path of a run folder."
Where = Annotated[
    str | None, typer.Option(help="Only runs that match: 'seed<3, model.kernel_size=7'.")
]


def run_roots(folders: list[Path] | None, output_dir: Path) -> list[Path]:
    """Return the named folders, or those of the output folder if none is named.

    Raises:
        ConfigError: if a named folder does not exist.
    """
    from seqbench.runs.find import places

    for folder in folders or []:
        if not folder.exists():
            raise ConfigError(f"there is no folder '{folder}'")
    return folders or places(output_dir)


def collect_runs(folders: list[Path] | None, output_dir: Path) -> "Collected":
    """Collect the runs of `run_roots`, and print the files that cannot be read.

    Raises:
        ConfigError: if a named folder does not exist.
    """
    from seqbench.results.collect import collect

    collected = collect(run_roots(folders, output_dir))
    for line in collected.unreadable:
        typer.echo(f"left out: {line}", err=True)
    return collected


def places_text(folders: list[Path] | None, output_dir: Path) -> str:
    """Return the folders that a command reads as text for messages."""
    return ", ".join(map(str, folders or [output_dir]))


def writable(file: Path | None, default: Path) -> Path:
    """Return the file to write; only a file named by the user is replaced.

    Raises:
        ConfigError: if `default` exists already, or the file cannot be written.
    """
    if file is None and default.exists():
        raise ConfigError(f"{default} exists: -o {default} overwrites it")
    file = file or default
    if not file.parent.is_dir():
        raise ConfigError(f"there is no folder '{file.parent}': create it")
    if file.is_dir():
        raise ConfigError(f"{file} is a folder: name a file")
    return file
