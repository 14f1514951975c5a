"""`seqbench table`: print scores of models by task, with intervals, bounds and failures."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from seqbench.cli.folders import Folders, OutputDir, Where, collect_runs, places_text
from seqbench.cli.overriding import refuse
from seqbench.wording import counted

if TYPE_CHECKING:
    from seqbench.runs.record import Record


def table(
    paths: Folders = None,
    format: Annotated[
        Literal["rich", "markdown", "latex", "html", "csv", "json"],
        typer.Option("--format", "-f", help="csv and json hold a line for each cell."),
    ] = "rich",
    paper: Annotated[
        str | None, typer.Option(help="Put a paper's numbers beside: tcn2018.")
    ] = None,
    where: Where = None,
    rows: Annotated[
        str,
        typer.Option(
            help="What goes down: one to three keys, 'model, optimizer.lr'; or 'method': compressed"
            " runs below their parents."
        ),
    ] = "model",
    cols: Annotated[str, typer.Option(help="What goes across: 'task, task.length'.")] = "task",
    show: Annotated[
        str,
        typer.Option(
            help="What stands beside each mean: median, interval, n, solved, parameters, seconds,"
            " compute; csv and json have it all."
        ),
    ] = "",
    metric: Annotated[
        str | None,
        typer.Option(help="Another metric of the runs than their score, as in --metric bpc."),
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="A model: paired differences of the others to it.")
    ] = None,
    output_dir: OutputDir = Path("outputs"),
) -> None:
    """Compare models across tasks: mean over seeds, interval, bounds.

    Flags mark cells with failed or diverged runs.

    Example: seqbench table --paper tcn2018 --where budget=full

    Example: seqbench table --against tcn

    Example: seqbench table --rows method

    Example: seqbench table --rows model,optimizer.lr --cols task.length --show median,seconds
    """
    from rich.console import Console

    from seqbench.cli.table_view import show_table
    from seqbench.errors import ConfigError
    from seqbench.results.cells import aggregate
    from seqbench.results.compression import uncompressed
    from seqbench.results.metric import ranked_by
    from seqbench.results.tables import export, markup
    from seqbench.results.tables.comparison import SHOWN, build_table
    from seqbench.results.tables.layout import COLS
    from seqbench.results.where import select

    down, across, beside = names(rows), names(cols), names(show)
    for name in beside:
        if name not in SHOWN:
            from seqbench.wording import suggestion

            raise ConfigError(f"--show knows no '{name}'{suggestion(name, SHOWN)}")
    by_methods = down == ("method",)
    if by_methods:
        options = {"--cols": across != COLS, "--show": beside, "--metric": metric, "--paper": paper}
        refuse(options | {"--against": against}, "is not for --rows method")
    elif format in ("csv", "json"):
        refuse({"--against": against}, f"is not for -f {format}")
    found = collect_runs(paths, output_dir)
    records = select(found.records, where)
    if by_methods:
        by_method(records, format)
        return
    shown = uncompressed(records)
    compressed = len(records) - len(shown)
    cells = aggregate(shown if metric is None else ranked_by(shown, metric))
    if not cells:
        hint = "try 'seqbench train model=tcn task=adding budget=quick'"
        if compressed:
            hint = f"--rows method shows {counted(compressed, 'compressed run')}"
        elif found.records:
            hint = f'none of {len(found.records)} runs matches --where "{where}"'
        elif found.unfinished:
            hint = "those that are there have not finished: see 'seqbench runs'"
        typer.echo(f"no results in {places_text(paths, output_dir)}: {hint}", err=True)
    if format in ("csv", "json"):
        write = export.to_csv if format == "csv" else export.to_json
        exported = export.rows_of(cells, paper, rows=down, cols=across)
        typer.echo(write(exported), nl=False)
    elif cells:
        keys: dict[str, Any] = {"rows": down, "cols": across, "show": beside, "against": against}
        built = build_table(cells, paper, **keys)
        if format in markup.RENDERERS:
            typer.echo(markup.RENDERERS[format](built), nl=False)
        else:
            show_table(built, Console(highlight=False))
        if found.unfinished:
            count = len(found.unfinished)
            typer.echo(f"{count} unfinished, not in the table: see 'seqbench runs'", err=True)
        if compressed:
            remark = f"{compressed} compressed, not in the table: --rows method shows them"
            typer.echo(remark, err=True)


def by_method(records: "list[Record]", format: str) -> None:
    """Print compressed runs below their parents.

    Raises:
        ConfigError: if no record is of a compressed run.
    """
    import json

    from rich.console import Console

    from seqbench.cli.table_view import show_table
    from seqbench.errors import ConfigError
    from seqbench.results.compression import Line, lines_of
    from seqbench.results.tables import export, markup
    from seqbench.results.tables.methods import method_table

    lines = lines_of(records)
    if not lines:
        raise ConfigError(
            "no compressed runs: 'seqbench compress RUN --prune weights=0.8' makes one"
        )
    if format == "json":
        typer.echo(json.dumps(list(map(vars, lines)), indent=2, allow_nan=False))
    elif format == "csv":
        rows = [list(Line.__dataclass_fields__), *(list(vars(line).values()) for line in lines)]
        typer.echo(export.csv_text(rows), nl=False)
    elif format in markup.RENDERERS:
        typer.echo(markup.RENDERERS[format](method_table(lines)), nl=False)
    else:
        show_table(method_table(lines), Console(highlight=False))


def names(text: str) -> tuple[str, ...]:
    """Split a comma-separated list, without blanks and empty parts."""
    return tuple(name for part in text.split(",") if (name := part.strip()))
