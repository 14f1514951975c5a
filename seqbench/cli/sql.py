"""`seqbench sql`: answer a SQL query on runs."""

import json
import math
import signal
import sys
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from seqbench.cli.folders import Folders, OutputDir, places_text, run_roots
from seqbench.errors import ConfigError
from seqbench.wording import number, plain

if TYPE_CHECKING:
    from rich.console import RenderableType

    from seqbench.results.sql import Answer

TABLES = """
\b
runs    a row for each run that is over:
          run_id, status (completed, diverged, failed), task, model, seed,
          budget, protocol, length, metric, split, score, direction (min or
          max: which is better), solved, baseline, optimum, parameters,
          steps, tokens, seconds, throughput (time steps/s),
          peak_memory_bytes, device, threads, host, git, started, finished
          (both UTC), source, error, metrics, notes, config (JSON:
          config.optimizer.lr), folder
events  a row for each metric at each step that was logged:
          run_id, task, model, seed, step, split, metric, value
cells   a row for each model on each task, over the seeds, as in a table:
          task, length, budget, protocol, model, variant, parameters, metric,
          split, direction, n, mean, sd, low, high (95% interval),
          geometric_mean (of errors), median, min, max, solved (share),
          baseline, optimum, failed, diverged, older_code, run_ids

An average over runs pools whatever they are; a cell holds runs that differ in the seed only.

\b
seqbench sql "select model, avg(score) from runs where seed < 3 group by 1"
seqbench sql -f csv "select step, value from events where metric = 'loss'"

The dialect is DuckDB's. One SELECT (or FROM, WITH, DESCRIBE, PIVOT) is answered: no file is ever
written, and none but the runs are read. Accuracies are fractions. '-' reads the query from stdin.
"""
# Significant digits in rich and markdown output; csv and json have all digits.
DIGITS = 4


def sql(
    query: Annotated[str, typer.Argument(help="A SELECT, or '-'.", show_default=False)],
    paths: Folders = None,
    format: Annotated[
        Literal["rich", "markdown", "csv", "json"], typer.Option("--format", "-f")
    ] = "rich",
    output_dir: OutputDir = Path("outputs"),
) -> None:
    """Query the tables `runs`, `events` and `cells` in SQL."""
    from seqbench.results.collect import collect
    from seqbench.results.sql import query as answer_to

    collected = collect(run_roots(paths, output_dir))
    # Invalid UTF-8 is replaced, so that DuckDB reports it as an error in the query.
    if query == "-":
        query = sys.stdin.buffer.read().decode("utf-8-sig", "replace")
    # DuckDB may run for hours before Python handles a Ctrl-C, and its import can swallow one. The
    # default signal action ends the process at once; a query needs no cleanup.
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:  # a script's background job ignores Ctrl-C
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        answer = answer_to(query, collected)
    finally:
        signal.signal(signal.SIGINT, before)
    for line in collected.unreadable + answer.left_out:
        typer.echo(f"left out: {line}", err=True)
    if not collected.records:
        typer.echo(f"no runs in {places_text(paths, output_dir)}", err=True)
    if collected.unfinished:
        count = len(collected.unfinished)
        typer.echo(f"{count} unfinished, in no table: see 'seqbench runs'", err=True)
    if format == "csv":
        typer.echo(to_csv(answer), nl=False)
    elif format == "json":
        typer.echo(to_json(answer))
    elif format == "markdown":
        typer.echo(to_markdown(answer))
    else:
        from rich.console import Console

        console = Console(highlight=False)
        console.print(to_rich(answer, console.width))


sql.__doc__ = f"{sql.__doc__}\n{TABLES}"


def to_csv(answer: "Answer") -> str:
    """Format as CSV, unrounded; text is escaped so that no spreadsheet takes it for a formula."""
    from seqbench.results.tables.export import csv_text

    rows = (answer.columns, *answer.rows)
    return csv_text([v if is_number(v) else text(v) for v in row] for row in rows)


def to_json(answer: "Answer") -> str:
    """Format as a JSON list of objects; non-finite numbers become null.

    Raises:
        ConfigError: if two columns have the same name.
    """
    twice = {name for name in answer.columns if answer.columns.count(name) > 1}
    if twice:
        name = plain(min(twice))
        raise ConfigError(f"two columns are called '{name}': tell them apart with AS")
    rows = [
        [None if isinstance(v, float) and not math.isfinite(v) else v for v in row]
        for row in answer.rows
    ]
    objects = [dict(zip(answer.columns, row, strict=True)) for row in rows]
    return json.dumps(objects, indent=2, allow_nan=False)


def to_markdown(answer: "Answer") -> str:
    """Format as a GitHub Markdown table, numbers rounded."""
    from seqbench.results.tables.markup import escape_markdown

    marks = ["---:" if numeric else "---" for numeric in numerics(answer)]
    rows = [answer.columns, *(map(short, row) for row in answer.rows)]
    header, *lines = (
        "| " + " | ".join(escape_markdown(text(v)) for v in row) + " |" for row in rows
    )
    return "\n".join([header, "|" + "|".join(marks) + "|", *lines])


def to_rich(answer: "Answer", width: int) -> "RenderableType":
    """Return a table, or one line per value if the table is wider than `width` columns."""
    from rich.cells import cell_len

    from seqbench.cli.rich_tables import columns_table, facts_table

    columns = list(map(text, answer.columns))
    rows = [list(map(short, row)) for row in answer.rows]
    longest = (max(map(cell_len, column)) for column in zip(columns, *rows, strict=True))
    if sum(longest) + 2 * len(columns) <= width:
        return columns_table(columns, rows, [*compress(columns, numerics(answer))])
    facts = [[("", ""), *zip(columns, row, strict=True)] for row in rows]
    return facts_table([fact for record in facts for fact in record][1:])


def numerics(answer: "Answer") -> list[bool]:
    """Return for each column True if it holds numbers and nulls only, with at least one number."""
    known = ([v for v in column if v is not None] for column in zip(*answer.rows, strict=True))
    return [bool(c) and all(map(is_number, c)) for c in known] or [False] * len(answer.columns)


def is_number(value: Any) -> bool:
    """Return True if a value is an int or float, but not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def short(value: Any) -> str:
    """Format a value for rich and markdown output: rounded, `-` for null."""
    if value is None:
        return "-"
    if isinstance(value, float) and math.isfinite(value):
        return number(value, digits=DIGITS)
    return text(value)


def text(value: Any) -> str:
    """Format a value in full, in one line, without control characters."""
    if value is None:
        return ""
    return plain(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
