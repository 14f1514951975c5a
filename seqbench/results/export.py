"""Cells for programs, a line each: nothing rounded, accuracies as fractions, `None` for unknown."""

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from seqbench.results.aggregate import Cell
from seqbench.results.papers import published, unlike
from seqbench.wording import plain


@dataclass(frozen=True, kw_only=True)
class Line:
    """What is known of a cell; see `Cell`, `Column` and `Statistics`.

    Attributes:
        variant: of the task, then of the model.
        solved: share of the runs, those that failed left out, that solved the task.
        older_code: runs that sources other than those in use made.
        published: what the paper reports, if one was asked for.
        not_like_for_like: why that may not be compared.
    """

    task: str
    length: int | None
    budget: str | None
    protocol: str | None
    model: str
    variant: str
    parameters: int | None
    metric: str | None
    split: str | None
    direction: str | None
    n: int
    mean: float | None
    sd: float | None
    ci95: float | None
    median: float | None
    min: float | None
    max: float | None
    solved: float | None
    baseline: float | None
    optimum: float | None
    failed: int
    diverged: int
    older_code: int
    published: float | None
    not_like_for_like: str | None
    run_ids: list[str]


def long_form(cells: Iterable[Cell], source: str, paper: str | None = None) -> list[Line]:
    """A line for each cell.

    Args:
        cells: as `aggregate` gives them.
        source: hash of the sources in use.
        paper: whose numbers to put beside.

    Raises:
        ConfigError: there is no such paper.
    """
    return [_line(cell, source, paper) for cell in cells]


def _line(cell: Cell, source: str, paper: str | None) -> Line:
    column, sample = cell.column, cell.statistics
    found = published(paper, column.task, cell.model) if paper else None
    sizes = ("mean", "sd", "ci95", "median", "min", "max")
    return Line(
        task=plain(column.task),
        length=column.length,
        budget=column.budget and plain(column.budget),
        protocol=column.protocol and plain(column.protocol),
        model=plain(cell.model),
        variant=plain(", ".join(filter(None, [column.variant, cell.variant]))),
        parameters=cell.parameters,
        metric=column.metric and plain(column.metric),
        split=column.split and plain(column.split),
        direction=column.direction,
        n=sample.n if sample else 0,
        **{name: getattr(sample, name, None) for name in sizes},
        solved=cell.solved[0] / cell.solved[1] if cell.solved else None,
        baseline=cell.baseline,
        optimum=cell.optimum,
        failed=cell.failed,
        diverged=cell.diverged,
        older_code=sum(record.source != source for record in cell.records),
        published=found.value if found else None,
        not_like_for_like=unlike(cell, found) if found else None,
        run_ids=[plain(record.run_id) for record in cell.records],
    )


def to_csv(lines: Iterable[Line]) -> str:
    """CSV, run ids separated by spaces; nothing in it is a formula to a spreadsheet."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(f.name for f in fields(Line))
    for line in lines:
        values = vars(line) | {"run_ids": " ".join(line.run_ids)}
        writer.writerow(inert(value) for value in values.values())
    return text.getvalue()


def to_json(lines: Iterable[Line]) -> str:
    """A list of objects."""
    return json.dumps([vars(line) for line in lines], indent=2, allow_nan=False) + "\n"


def inert(value: Any) -> Any:
    """A value that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@") else value
