"""How far runs have come: a row each, in the live table of a sweep and in `seqbench runs`."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from seqbench.launch.progress import Progress
from seqbench.wording import amount, duration, number, plain, score

# Columns from which on there is room for losses and speeds, and for the names of metrics; and
# beyond which a row is too long for an eye to follow.
ROOM_FOR_SPEED, ROOM_FOR_METRIC, WIDEST = 70, 100, 120


def running_table(
    running: Sequence[tuple[str, Progress]], width: int, *, live: bool = True
) -> Table:
    """How far runs have come, no wider than a terminal.

    Args:
        running: names of runs, and how far they are.
        width: of the terminal, in columns.
        live: the table is drawn again and again, and keeps the columns that are empty so far.
    """
    # As wide whatever its numbers are, or else it would jump; names give way to numbers.
    table = Table(box=None, pad_edge=False, header_style="dim", width=min(width, WIDEST))
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
    """How far a run has come, by column; in brief, without the name of the metric."""
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
