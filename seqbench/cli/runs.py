"""`seqbench runs`: list runs with their status, score and settings."""

import signal
import time
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seqbench.cli.folders import Folders, OutputDir, run_roots
from seqbench.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from seqbench.launch.progress import Progress
    from seqbench.results.collect import Unfinished
    from seqbench.runs.record import Record


class Status(str, Enum):
    """Values of the option `--status`."""

    running = "running"
    completed = "completed"
    diverged = "diverged"
    failed = "failed"
    unfinished = "unfinished"


COLOURS = {"completed": "green", "diverged": "red", "failed": "red", "unfinished": "yellow"}
NUMBERS = ("seed", "score", "steps", "took")
# On a narrow terminal, the settings column is first cut to SHORT characters. If the table is still
# too wide, OPTIONAL_COLUMNS are dropped in this order, and finally the settings column. Those that
# fit then come back.
SETTINGS, SHORT = "settings", 20
OPTIONAL_COLUMNS = ("device", "took", "budget", "steps")
# Minimum seconds between refreshes, and maximum share of a CPU core for reading the runs.
REFRESH_SECONDS, MAX_CPU_SHARE = 1.0, 0.1


def runs(
    paths: Folders = None,
    status: Annotated[Status | None, typer.Option(help="List only runs with this status.")] = None,
    where: Annotated[
        str | None, typer.Option(help="List only runs that match, e.g. 'seed<3, task=adding'.")
    ] = None,
    limit: Annotated[
        int, typer.Option(min=0, help="List at most this many runs that are not running; 0: all.")
    ] = 30,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh the list until Ctrl-C.")] = False,
    output_dir: OutputDir = Path("outputs"),
) -> None:
    """List the runs in progress, then all other runs, newest first.

    A run is unfinished if it has no record and no process is training it.

    Example: seqbench runs --status failed
    """
    from rich.console import Console
    from rich.live import Live

    from seqbench.results.summary import columns

    console = Console(highlight=False)
    found = Runs(run_roots(paths, output_dir), status, where)
    if watch and (not console.is_terminal or console.is_dumb_terminal):
        raise ConfigError(
            "--watch: expected a terminal as stdout, got a file, a pipe or TERM=dumb: omit --watch"
        )
    found.refresh()
    if watch:
        # Handle SIGTERM like Ctrl-C, so that the terminal is restored.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        cost = 0.0
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(view(found, limit, console.width, console.height), refresh=True)
                time.sleep(max(REFRESH_SECONDS, cost / MAX_CPU_SHARE))
                begin = time.process_time()
                found.refresh()
                cost = time.process_time() - begin
    for line in found.unreadable:
        typer.echo(f"left out: {line}", err=True)
    if not found.running and not found.others:
        typer.echo(found.empty_message, err=True)
        return
    console.print(view(found, limit, console.width))
    rows = list(map(columns, found.others[: limit or None]))
    if hidden := hidden_columns(rows, console.width):
        typer.echo(f"too narrow for {', '.join(hidden)}", err=True)
    if limit and (more := len(found.others) - limit) > 0:
        typer.echo(f"{more} more: --limit 0 shows all", err=True)


class Runs:
    """The runs in some folders that match a filter, as read by the last call of `refresh`.

    Args:
        folders: folders to search for runs, with their subfolders.
        status: status to filter by; `None` for all.
        where: filter expression for `select`; `None` for all.
    """

    def __init__(self, folders: list[Path], status: Status | None, where: str | None) -> None:
        self.folders, self.status, self.where = folders, status, where
        self.running: list[tuple[Unfinished, Progress]] = []
        self.others: list[Record | Unfinished] = []
        self.unreadable: list[str] = []
        self.empty_message = ""
        self.seen: dict[Path, Progress] = {}

    def refresh(self) -> None:
        """Read all runs from disk, and update the attributes.

        Raises:
            ConfigError: if the filter cannot be parsed, or names a key that no run has.
        """
        from seqbench.launch.progress import Progress
        from seqbench.results.collect import Unfinished, collect, read_unfinished
        from seqbench.results.summary import finished
        from seqbench.results.where import select
        from seqbench.runs.record import Record
        from seqbench.runs.run import Run

        collected = collect(self.folders)
        found: list[Record | Unfinished] = [*collected.records]
        if self.status in (None, Status.running, Status.unfinished):
            found += map(read_unfinished, collected.unfinished)
        some = collected.records or collected.unfinished
        hint = (
            "none matches --status and --where: omit them to list all"
            if some
            else "try 'seqbench train model=tcn task=adding budget=quick'"
        )
        self.empty_message = f"no runs in {', '.join(map(str, self.folders))}: {hint}"
        self.unreadable = collected.unreadable
        wanted = self.status and self.status.value
        found = [run for run in select(found, self.where) if wanted in (None, run.status)]
        running = [run for run in found if isinstance(run, Unfinished) and run.status == "running"]
        # Keep the Progress objects: a speed is computed from two reads of the same run.
        self.seen = {
            run.folder: self.seen.get(run.folder) or Progress(Run(run.folder)) for run in running
        }
        self.running = [(run, self.seen[run.folder].look()) for run in running]
        self.others = sorted(
            (run for run in found if run.status != "running"), key=finished, reverse=True
        )


def view(runs: Runs, limit: int, width: int, height: int | None = None) -> "RenderableType":
    """Return the tables of the runs in progress and of all other runs.

    Args:
        runs: the runs.
        limit: maximum number of runs that are not in progress; 0 for all.
        width: maximum width in characters.
        height: maximum height in lines, for `--watch`: the tables are shortened, and a line with
            the number of runs is added; `None` for no maximum.
    """
    from rich.console import Group
    from rich.text import Text

    from seqbench.cli.running import running_table
    from seqbench.results.summary import columns

    running = runs.running
    parts: list[RenderableType] = []
    if height is not None:
        now = time.strftime("%H:%M:%S")
        counts = f"{now}  {len(running)} running, {len(runs.others)} others  (Ctrl-C to quit)"
        parts.append(Text(counts, "bold", no_wrap=True))
        if runs.unreadable:
            parts.append(Text(f"left out, cannot be read: {len(runs.unreadable)}", "red"))
        # 3 lines: the headers of both tables, and a blank line between the tables.
        room = max(2, height - len(parts) - 3)
        running = running[: max(room // 2, room - len(runs.others))]
        limit = min(limit or room, max(1, room - len(running)))
    if running:
        named = [(name_of(run), progress) for run, progress in running]
        parts += [running_table(named, width, live=height is not None), ""]
    others = runs.others[:limit] if limit else runs.others
    if others:
        parts.append(others_table(list(map(columns, others)), width))
    elif not running:
        parts.append(Text(runs.empty_message))
    return Group(*parts)


def others_table(rows: Sequence[Mapping[str, str]], width: int) -> "Table":
    """Return the table of runs that are not in progress, at most `width` characters wide."""
    from rich.text import Text

    from seqbench.cli.rich_tables import columns_table

    widths = fitting(rows, width)

    def cell(row: Mapping[str, str], name: str) -> Text:
        styles = {"status": COLOURS[row["status"]], "run": "bold"}
        text = Text(row[name], styles.get(name, ""))
        if name == SETTINGS:
            text.truncate(widths[name], overflow="ellipsis")
        return text

    return columns_table(widths, ([cell(row, name) for name in widths] for row in rows), NUMBERS)


def fitting(rows: Sequence[Mapping[str, str]], width: int) -> dict[str, int]:
    """Return the columns that fit into a width, in characters, with the width of each."""
    from rich.cells import cell_len

    full = {
        name: max(cell_len(text) for text in (name, *(r[name] for r in rows))) for name in rows[0]
    }
    if not any(row[SETTINGS] for row in rows):
        del full[SETTINGS]
    widths = {name: min(size, SHORT) if name == SETTINGS else size for name, size in full.items()}

    def room() -> int:
        return width - sum(widths.values()) - 2 * len(widths)

    dropped = {}
    for name in (*OPTIONAL_COLUMNS, SETTINGS):
        if room() < 0 and name in widths:
            dropped[name] = widths.pop(name)
    for name, size in reversed(dropped.items()):
        if size + 2 <= room():
            widths[name] = size
    if SETTINGS in widths:
        widths[SETTINGS] += room()
    return {name: widths[name] for name in full if name in widths}


def hidden_columns(rows: Sequence[Mapping[str, str]], width: int) -> list[str]:
    """Return the columns with values that do not fit into a width, in characters."""
    shown = fitting(rows, width) if rows else {}
    names = rows[0] if rows else ()
    return [name for name in names if name not in shown and any(row[name] for row in rows)]


def name_of(run: "Unfinished") -> str:
    """Return a run's short id with its task, model and seed."""
    from seqbench.results.summary import columns

    row = columns(run)
    return f"{row['run']} {row['task']} {row['model']} seed={row['seed']}"
