"""Export cells as CSV or JSON: unrounded, accuracies as fractions, `None` for unknown values."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from seqbench.results.cells import Cell, standings
from seqbench.results.papers import cell_differences, published
from seqbench.results.statistics import Statistics, describe
from seqbench.results.tables.layout import COLS, ROWS, check_keys, setting
from seqbench.wording import plain


@dataclass(frozen=True, kw_only=True)
class Line:
    """One exported cell; see `Cell`, `Column` and `Statistics` for fields not listed.

    Attributes:
        variant: variant of the task, then of the model.
        mean, sd, low, high: arithmetic, whatever other cells there are; tables show geometric means
            where the errors of a column span decades.
        geometric_mean: of the same scores; `None` unless all are positive errors.
        solved: fraction of the runs that solved the task; failed runs do not count.
        older_code: number of runs made by other seqbench sources than those in use.
        published: the paper's value, if a paper was given and reports one.
        not_like_for_like: why the published value is not comparable; `None` if it is.
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
    low: float | None
    high: float | None
    geometric_mean: float | None
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


NAMES = [field.name for field in fields(Line)]


def long_form(cells: Iterable[Cell], paper: str | None = None) -> list[Line]:
    """Return a line for each cell; arguments as for `rows_of`."""
    return [_line(cell, paper) for cell in cells]


def _line(cell: Cell, paper: str | None) -> Line:
    column, values = cell.column, [value for _, value in cell.scores]
    are_errors = column.direction == "min" and min(values, default=0.0) > 0
    found = published(paper, cell.records[0]) if paper else None
    facts: dict[str, Any] = dict.fromkeys(field.name for field in fields(Statistics))
    facts |= {"n": 0} | (vars(describe(values)) if values else {})
    del facts["log"]
    facts["geometric_mean"] = describe(values, log=True).mean if are_errors else None
    facts |= vars(column) | {
        "model": cell.model,
        "variant": ", ".join(filter(None, [column.variant, cell.variant])),
        "parameters": cell.parameters,
        "solved": cell.solved[0] / cell.solved[1] if cell.solved else None,
        "older_code": sum(not record.is_current for record in cell.records),
        "published": found.value if found else None,
        "not_like_for_like": ", ".join(cell_differences(cell, found)) or None if found else None,
        "run_ids": [plain(record.run_id) for record in cell.records],
    }
    facts |= {name: getattr(cell, name) for name in ("baseline", "optimum", "failed", "diverged")}
    for name, value in facts.items():
        facts[name] = plain(value) if isinstance(value, str) else value
    return Line(**facts)


def rows_of(
    cells: Sequence[Cell],
    paper: str | None = None,
    *,
    rows: Sequence[str] = ROWS,
    cols: Sequence[str] = COLS,
) -> list[dict[str, Any]]:
    """Return all that is exported of each cell.

    Args:
        cells: as returned by `aggregate`.
        paper: name of a paper whose published values to include.
        rows: config keys of the table's rows.
        cols: config keys of the table's columns.

    Returns:
        A dict for each cell: the fields of its `Line`, `standing` (`best` in its column, `tied`
        with the best over shared seeds, or `None`), `seconds` of training and `compute` in FLOP
        (means over runs), and the value of each row and column key that is not a field.

    Raises:
        ConfigError: if there is no such paper, no run has a key, or its value differs between the
            seeds of a cell.
    """
    check_keys(cells, rows=rows, cols=cols)
    keys = [key for key in (*rows, *cols) if key not in NAMES]
    lines = zip(cells, long_form(cells, paper), standings(cells), strict=True)
    return [
        vars(line)
        | {"standing": standing, "seconds": cell.seconds, "compute": cell.compute}
        | {key: setting(cell, key) for key in keys}
        for cell, line, standing in lines
    ]


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Return exported cells as CSV, run ids separated by spaces."""
    texts = [row | {"run_ids": " ".join(row["run_ids"])} for row in rows]
    return csv_text([rows[0] if rows else NAMES, *(row.values() for row in texts)])


def to_json(rows: Sequence[dict[str, Any]]) -> str:
    """Return exported cells as a JSON list of objects."""
    return json.dumps(rows, indent=2, allow_nan=False) + "\n"


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Return CSV, a text prefixed with `'` if a spreadsheet would run it as a formula."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    for row in rows:
        writer.writerow(
            f"'{v}" if isinstance(v, str) and v[:1] in tuple("=+-@") else v for v in row
        )
    return file.getvalue()
