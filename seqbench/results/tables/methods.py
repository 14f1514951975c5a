"""Build the table of compressed runs: each below its parent, with score, size and latency."""

from collections.abc import Sequence

from seqbench.results.compression import Line
from seqbench.results.tables.layout import ARROWS
from seqbench.results.tables.table import Entry, Header, Row, Table
from seqbench.wording import count, metric_name, number, task_with_size

NOTES = (
    "non-zero: weights that pruning and rounding left; bytes: of the file of weights",
    "latency: a forward pass of one example, relative to the parent, measured in turns (median of "
    "pairs)",
)


def method_table(lines: Sequence[Line]) -> Table:
    """Return the table of lines that `lines_of` returned."""
    measures = {(line.split, line.metric, line.direction) for line in lines if line.metric}
    measure = ""
    if len(measures) == 1:
        split, metric, direction = measures.pop()
        measure = f"{metric_name(str(metric))} {ARROWS.get(str(direction), '')}".strip()
        measure = measure if split == "test" else f"{split} {measure}"
    headers = (
        Header("score", measure),
        Header("difference", "", beside=True),
        Header("parameters", "", beside=True),
        Header("non-zero", "", beside=True),
        Header("bytes", "", beside=True),
        Header("latency", "of the parent's", beside=True),
    )
    rows = tuple(Row(label(line), entries(line)) for line in lines)
    return Table("Compressed runs", headers, rows, NOTES, stub="method")


def label(line: Line) -> str:
    """Return the label of a row: model and task of a parent, method of a child, and the id."""
    name = f"run {line.run_id[:8]}"
    if line.parent is None:
        if line.model and line.task:
            name = f"{line.model} on {task_with_size(line.task, line.length)}, {name}"
        return name
    return f"- {line.method}, {name}"


def entries(line: Line) -> tuple[Entry | None, ...]:
    """Return the entries of a row; those that are unknown are empty."""
    texts = (
        None if line.score is None else number(line.score, line.metric),
        None if line.difference is None else signed(line.difference, line.metric),
        None if line.parameters is None else count(line.parameters),
        None if line.nonzero is None else count(line.nonzero),
        None if line.bytes is None else count(line.bytes),
        None if line.latency_ratio is None else f"{line.latency_ratio:.2f}",
    )
    return tuple(None if text is None else Entry(text) for text in texts)


def signed(value: float, metric: str | None) -> str:
    """Return a difference with its sign."""
    return f"{'+' if value > 0 else ''}{number(value, metric)}"
