"""`seqbench table`: models against tasks, with what can be said of the numbers."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Format(str, Enum):
    """How a table is written."""

    rich = "rich"
    markdown = "markdown"
    latex = "latex"
    html = "html"
    csv = "csv"
    json = "json"


def table(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[PATH]...", help="Folders with runs; all below --output-dir if none is named."
        ),
    ] = None,
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
    output_dir: Annotated[Path, typer.Option(help="Where runs are.")] = Path("outputs"),
) -> None:
    """Compare models across tasks: mean over seeds, interval, bounds, and what failed.

    Example: seqbench table --paper tcn2018 --where budget=full
    """
    from rich.console import Console

    from seqbench.cli.table_view import show_table
    from seqbench.errors import ConfigError
    from seqbench.results import export, html, latex, markdown
    from seqbench.results.aggregate import aggregate
    from seqbench.results.collect import collect
    from seqbench.results.tables import build_table
    from seqbench.results.where import select
    from seqbench.runs.identity import source_hash

    for path in paths or []:
        if not path.exists():
            raise ConfigError(f"there is no folder '{path}'")
    collected = collect(paths or [output_dir / "runs"])
    for line in collected.unreadable:
        typer.echo(f"left out: {line}", err=True)
    cells = aggregate(select(collected.records, where))
    if not cells:
        places = ", ".join(map(str, paths or [output_dir]))
        hint = "try 'seqbench train model=tcn task=adding budget=quick'"
        if collected.records:
            hint = f'none of {len(collected.records)} runs matches --where "{where}"'
        elif collected.unfinished:
            hint = "those that are there have not finished: see 'seqbench runs'"
        typer.echo(f"no results in {places}: {hint}", err=True)
    if format is Format.csv:
        typer.echo(export.to_csv(export.long_form(cells, source_hash(), paper)), nl=False)
    elif format is Format.json:
        typer.echo(export.to_json(export.long_form(cells, source_hash(), paper)), nl=False)
    elif cells:
        built = build_table(cells, source_hash(), paper)
        render = {
            Format.markdown: markdown.render,
            Format.latex: latex.render,
            Format.html: html.render,
        }.get(format)
        if render:
            typer.echo(render(built), nl=False)
        else:
            show_table(built, Console(highlight=False))
        if collected.unfinished:
            count = len(collected.unfinished)
            typer.echo(f"{count} unfinished, not in the table: see 'seqbench runs'", err=True)
