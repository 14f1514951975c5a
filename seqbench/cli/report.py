"""`seqbench report`: write a self-contained HTML page about many runs."""

from pathlib import Path
from typing import Annotated

import typer

from seqbench.cli.folders import Folders, OutputDir, Where, collect_runs, places_text, writable
from seqbench.wording import counted

# Bytes above which a page is slow to open and too large for an e-mail.
LARGE = 20_000_000
DEFAULT = Path("report.html")


def report(
    paths: Folders = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The file; one that is there is replaced only if named here."
        ),
    ] = None,
    paper: Annotated[
        str | None,
        typer.Option(help="Paper to compare with; found by the tasks if none is named."),
    ] = None,
    where: Where = None,
    output_dir: OutputDir = Path("outputs"),
) -> None:
    """Write an HTML page that compares runs and needs no network.

    It holds the comparison table, curves and the details of every run.

    Example: seqbench report --where budget=quick -o report.html
    """
    from seqbench.errors import ConfigError
    from seqbench.results.collect import Unfinished, read_unfinished
    from seqbench.results.report.content import build_content
    from seqbench.results.report.page import render
    from seqbench.results.where import select
    from seqbench.runs import atomic
    from seqbench.runs.record import Record

    file = output or DEFAULT
    if file.suffix not in (".html", ".htm"):
        named = file.with_suffix(".html") if file.stem.strip(".") else file / "report.html"
        raise ConfigError(f"a report is an HTML file: -o {named}")
    file = writable(output, DEFAULT)
    found = collect_runs(paths, output_dir)
    everyone: list[Record | Unfinished] = [*found.records]
    everyone += map(read_unfinished, found.unfinished)
    chosen = select(everyone, where)
    if not chosen:
        hint = "none matches" if everyone else "'seqbench train' makes one"
        raise ConfigError(f"no runs in {places_text(paths, output_dir)}: {hint}")
    content = build_content(
        [run for run in chosen if isinstance(run, Record)],
        [run for run in chosen if isinstance(run, Unfinished)],
        found.folders,
        left_out=found.unreadable,
        paper=paper,
    )
    page = render(content).encode()
    atomic.write(file, page)
    count = counted(len(chosen), "run")
    typer.echo(f"{file}: {count}, {len(page) / 1e6:.1f} MB")
    if len(page) > LARGE:
        typer.echo("that is large for a browser and an e-mail: --where selects runs", err=True)
