"""Compare each model of a table with one of them, over the seeds that both have."""

from collections.abc import Sequence

from seqbench.results.cells import Cell
from seqbench.results.statistics import FEWEST_SEEDS, paired
from seqbench.results.tables.table import FACTOR, Entry
from seqbench.wording import mean_and_spread, number, plain


def against_entry(cell: Cell, rivals: Sequence[Cell], name: str | None) -> Entry | None:
    """Return the mean paired difference between a cell and a model, with its 95% interval.

    Where the errors of a column span decades, it is a ratio with the factor of its interval.

    Args:
        cell: the cell.
        rivals: the cells of its column of the table.
        name: name of the model.

    Returns:
        `None` for the model itself, and where it has no cell or several ones in the column.
    """
    theirs = [rival for rival in rivals if rival.model == name and rival.column == cell.column]
    if len(theirs) != 1 or cell is theirs[0]:
        return None
    sample = paired(dict(cell.scores), dict(theirs[0].scores), cell.log)
    if sample is None:
        return Entry("-")
    half = None
    if sample.high is not None and sample.n >= FEWEST_SEEDS:
        half = sample.high / sample.mean if cell.log else sample.high - sample.mean
    if cell.log:
        value, spread = number(sample.mean, digits=2), number(half, digits=2) if half else ""
    else:
        value, spread = mean_and_spread(sample.mean, half, cell.column.metric)
        value = f"+{value}" if sample.mean > 0 else value
    flags = (f"n={sample.n}",) if sample.n < FEWEST_SEEDS else ()
    return Entry(value, spread, flags=flags, log=cell.log)


def against_note(name: str) -> str:
    """Return the note that explains the column."""
    return (
        f"against {plain(name)}: mean difference over shared seeds ± half of its 95% interval, in"
        f" points of accuracies; where errors span decades, their ratio {FACTOR} a factor"
    )
