"""`seqbench data`: download and verify datasets, print their folders, describe a table."""

import shlex
from typing import Annotated

import typer

from seqbench.cli.describe import describe
from seqbench.datasets.catalog import DATASETS, find
from seqbench.errors import ConfigError, DataError

app = typer.Typer(
    help="Download and verify datasets; describe a file.",
    no_args_is_help=True,
)
app.command()(describe)


def dataset_names(incomplete: str) -> list[str]:
    """Return the dataset names that start with a prefix, for shell completion."""
    return [name for name in DATASETS if name.startswith(incomplete)]


Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="NAME", help=", ".join(DATASETS), autocompletion=dataset_names),
]
DataDir = Annotated[
    str | None,
    typer.Option(help="Folder of the datasets; default: $SEQBENCH_DATA or the user's cache."),
]


@app.command()
def fetch(
    names: Names = None,
    every: Annotated[bool, typer.Option("--all", help="Fetch every dataset.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Download missing datasets, and resume partial downloads.

    Example: seqbench data fetch mnist ptb
    """
    from seqbench.datasets.download import data_folder, ensure

    if not names and not every:
        raise ConfigError(
            f"expected the name of a dataset, got none: use --all or one of {', '.join(DATASETS)}"
        )
    chosen = {name: find(name) for name in (DATASETS if every else names or ())}
    failures = []
    for name, dataset in chosen.items():
        try:
            ensure(name, data_dir)
        except DataError as error:
            failures.append(str(error))
        else:
            where = data_folder(data_dir) / dataset.folder
            typer.echo(f"{name}: ready in {where}; terms: {dataset.licence}", err=True)
    if failures:
        raise DataError("; ".join(failures))


@app.command()
def verify(names: Names = None, data_dir: DataDir = None) -> None:
    """Check the SHA-256 of dataset files.

    Prints ok, missing or bad for each file, and exits with code 3 unless all files are ok.

    Example: seqbench data verify mnist
    """
    from seqbench.datasets.download import check, data_folder

    chosen = {name: find(name) for name in names or DATASETS}
    failed = []
    for name, dataset in chosen.items():
        for file in dataset.files:
            path = data_folder(data_dir) / dataset.folder / file.name
            state = check(file, path)
            typer.echo(f"{state:7}  {path}")
            if state != "ok" and name not in failed:
                failed.append(name)
    if failed:
        where = ["--data-dir", data_dir] if data_dir is not None else []
        command = shlex.join(["seqbench", "data", "fetch", *failed, *where])
        raise DataError(f"expected complete datasets, got missing or bad files: run {command}")


@app.command()
def path(
    name: Annotated[
        str | None, typer.Argument(help="Name of a dataset.", autocompletion=dataset_names)
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Print the folder of a dataset, or of all datasets.

    The folder need not exist.

    Example: ls "$(seqbench data path mnist)"
    """
    from seqbench.datasets.download import data_folder

    folder = data_folder(data_dir)
    typer.echo(folder / find(name).folder if name else folder)
