"""Progress table of running runs, for the live view of a sweep and for `seqbench runs`."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from seqbench.cli.rich_tables import empty_table
from seqbench.launch.progress import Progress
from seqbench.wording import amount, duration, number, plain, score

# Terminal columns needed to show loss and speed, and to show metric names; and the widest table,
# beyond which a row is hard to follow by eye.
ROOM_FOR_SPEED, ROOM_FOR_METRIC, WIDEST = 70, 100, 120


def running_table(
    running: Sequence[tuple[str, Progress]], width: int, *, live: bool = True
) -> Table:
    """Return a table with one row of progress per run, no wider than the terminal.

    Args:
        running: name and progress of each run.
        width: width of the terminal in columns.
        live: keep columns that are still empty, since the table is redrawn.
    """
    # A fixed width keeps the table from jumping between updates; names are cut before numbers.
    table = empty_table(min(width, WIDEST))
    table.add_column("running", no_wrap=True, overflow="ellipsis", ratio=1)
    rows = [(Text(name), figures(run, brief=width < ROOM_FOR_METRIC)) for name, run in running]
    narrow = width < ROOM_FOR_SPEED
    columns = ["step", "valid", "left"] if narrow else ["step", "loss", "valid", "speed", "left"]
    columns = [name for name in columns if live or any(cells[name] for _, cells in rows)]
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for text, cells in rows:
        table.add_row(text, *(cells[name] for name in columns))
    return table


def figures(progress: Progress, brief: bool = False) -> dict[str, str]:
    """Return column -> text of a run's progress; `brief` omits the metric's name."""
    total = f"/{progress.total_steps:,}" if progress.total_steps else ""
    valid, metric = "", progress.metric
    if metric is not None and progress.score is not None:
        valid = (amount if brief else score)(metric, progress.score)
    return {
        "step": f"{progress.step:,}{total}",
        "loss": number(progress.loss) if progress.loss is not None else "",
        "valid": plain(valid),
        "speed": f"{number(progress.speed)}/s" if progress.speed else "",
        "left": duration(progress.seconds_left) if progress.speed else "",
    }
