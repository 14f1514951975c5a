"""`seqbench runs`: what has been run, and how it ended."""

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from seqbench.results.collect import Unfinished
    from seqbench.runs.record import Record


class Status(str, Enum):
    """How far a run came."""

    completed = "completed"
    diverged = "diverged"
    failed = "failed"
    unfinished = "unfinished"


COLOURS = {"completed": "green", "diverged": "red", "failed": "red", "unfinished": "yellow"}
NUMBERS = ("seed", "score", "steps", "took")
# Columns that a narrow terminal does without, in this order.
SPARE = ("device", "took", "budget", "steps")


def runs(
    status: Annotated[Status | None, typer.Option(help="Only runs that ended like this.")] = None,
    where: Annotated[
        str | None, typer.Option(help="Only runs that match: 'seed<3, task=adding'.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="How many to show; 0 for all.")] = 30,
    output_dir: Annotated[Path, typer.Option(help="Where runs are.")] = Path("outputs"),
) -> None:
    """List runs, newest first; those without a record are unfinished.

    Example: seqbench runs --status failed
    """
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from seqbench.results.collect import Unfinished, collect, read_unfinished
    from seqbench.results.where import select
    from seqbench.runs.record import Record

    collected = collect([output_dir / "runs"])
    for line in collected.unreadable:
        typer.echo(f"left out: {line}", err=True)
    found: list[Record | Unfinished] = [*collected.records]
    if status in (None, Status.unfinished):
        found += map(read_unfinished, collected.unfinished)
    found = [run for run in select(found, where) if status is None or run.status == status.value]
    if not found:
        some = collected.records or collected.unfinished
        hint = "none matches" if some else "try 'seqbench train model=tcn task=adding budget=quick'"
        typer.echo(f"no runs in {output_dir}: {hint}", err=True)
        return
    found.sort(key=when, reverse=True)
    rows = [row_of(run) for run in (found[:limit] if limit else found)]

    console = Console(highlight=False)
    widths = {
        name: max(cell_len(text) for text in (name, *(r[name] for r in rows))) for name in rows[0]
    }
    for name in SPARE:
        if sum(widths.values()) + 2 * len(widths) > console.width:
            del widths[name]
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for name in widths:
        table.add_column(name, justify="right" if name in NUMBERS else "left", overflow="fold")
    for row in rows:
        styles = {"status": COLOURS[row["status"]], "run": "bold"}
        table.add_row(*(Text(row[name], styles.get(name, "")) for name in widths))
    console.print(table)
    if len(found) > len(rows):
        typer.echo(f"{len(found) - len(rows)} more: --limit 0 shows all", err=True)


def when(run: "Record | Unfinished") -> str:
    """When a run ended or last showed life, ISO 8601 in UTC."""
    from seqbench.runs.record import Record

    return str(run.measured.get("finished", "")) if isinstance(run, Record) else run.touched


def row_of(run: "Record | Unfinished") -> dict[str, str]:
    """What the list says of a run, by column."""
    from seqbench.results.where import MISSING, value_of
    from seqbench.wording import duration, plain, score, task_with_size

    def known(*keys: str) -> object:
        values = (value_of(run, key) for key in keys)
        return next((value for value in values if value not in (MISSING, None)), "-")

    steps = run.steps
    found = getattr(run, "score", None)
    return {
        "run": plain(run.run_id)[:8],
        "task": task_with_size(run.task, known("length", "task.length")),
        "model": plain(run.model),
        "seed": plain(str(known("seed"))),
        "budget": plain(str(known("budget"))),
        "status": run.status,
        "score": score(found.metric, found.value) if found else "-",
        "steps": "-" if steps is None else f"{steps:,}",
        "took": duration(known("measured.seconds")),
        "device": plain(str(known("measured.device"))),
    }
