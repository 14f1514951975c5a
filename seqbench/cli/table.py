"""`seqbench table`: print scores of models by task, with intervals, bounds and failures."""

import difflib
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from seqbench.cli.folders import Folders, collected


class Format(str, Enum):
    """The output formats of a table."""

    rich = "rich"
    markdown = "markdown"
    latex = "latex"
    html = "html"
    csv = "csv"
    json = "json"


def table(
    paths: Folders = None,
    format: Annotated[
        Format, typer.Option("--format", "-f", help="csv and json hold a line for each cell.")
    ] = Format.rich,
    paper: Annotated[
        str | None, typer.Option(help="Put a paper's numbers beside: tcn2018.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(help="Only runs that match: 'seed<3, model.kernel_size=7'."),
    ] = None,
    rows: Annotated[
        str, typer.Option(help="What goes down: one to three keys, 'model, optimizer.lr'.")
    ] = "model",
    cols: Annotated[str, typer.Option(help="What goes across: 'task, task.length'.")] = "task",
    show: Annotated[
        str,
        typer.Option(
            help="What stands beside each mean: median, interval, n, solved, parameters, seconds,"
            " compute; csv and json have it all."
        ),
    ] = "",
    output_dir: Annotated[Path, typer.Option(help="Where runs are.")] = Path("outputs"),
) -> None:
    """Compare models across tasks: mean over seeds, interval, bounds.

    Flags mark cells with failed or diverged runs.

    Example: seqbench table --paper tcn2018 --where budget=full

    Example: seqbench table --rows model,optimizer.lr --cols task.length --show median,seconds
    """
    from rich.console import Console

    from seqbench.cli.table_view import show_table
    from seqbench.errors import ConfigError
    from seqbench.results.cells import aggregate
    from seqbench.results.tables import export, markup
    from seqbench.results.tables.comparison import SHOWN, build_table
    from seqbench.results.where import select
    from seqbench.runs.code_hash import source_hash

    down, across, beside = names(rows), names(cols), names(show)
    for name in beside:
        if name not in SHOWN:
            near = difflib.get_close_matches(name, SHOWN, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(SHOWN)}"
            raise ConfigError(f"--show knows no '{name}' ({hint})")
    found = collected(paths, output_dir)
    cells = aggregate(select(found.records, where))
    if not cells:
        places = ", ".join(map(str, paths or [output_dir]))
        hint = "try 'seqbench train model=tcn task=adding budget=quick'"
        if found.records:
            hint = f'none of {len(found.records)} runs matches --where "{where}"'
        elif found.unfinished:
            hint = "those that are there have not finished: see 'seqbench runs'"
        typer.echo(f"no results in {places}: {hint}", err=True)
    if format in (Format.csv, Format.json):
        write = export.to_csv if format is Format.csv else export.to_json
        exported = export.rows_of(cells, source_hash(), paper, rows=down, cols=across)
        typer.echo(write(exported), nl=False)
    elif cells:
        built = build_table(cells, source_hash(), paper, rows=down, cols=across, show=beside)
        if format.value in markup.RENDERERS:
            typer.echo(markup.RENDERERS[format.value](built), nl=False)
        else:
            show_table(built, Console(highlight=False))
        if found.unfinished:
            count = len(found.unfinished)
            typer.echo(f"{count} unfinished, not in the table: see 'seqbench runs'", err=True)


def names(text: str) -> tuple[str, ...]:
    """Split a comma-separated list, without blanks and empty parts."""
    return tuple(name for part in text.split(",") if (name := part.strip()))
