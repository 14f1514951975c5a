"""Arrange cells in a grid whose rows and columns are keyed by config keys.

The side (rows or columns) that names the task also shows the rest of each cell's `Column`: length,
metric, and budget and protocol where cells differ in them. So cells measured on different things
never share a row or column unnoticed. Keys that the other side names are shown there instead. Cells
that still share a place get a row each, labelled with the options that distinguish them.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from seqbench.errors import ConfigError
from seqbench.results.cells import Cell, Column, model_options, task_options
from seqbench.results.variants import canonical, leaf, shown, tell_apart
from seqbench.results.where import MISSING, unknown_key, value_of
from seqbench.wording import metric_name, plain, task_with_size

ROWS, COLS = ("model",), ("task",)
MOST_KEYS = 3
ARROWS = {"min": "↓", "max": "↑"}
# Fields of `Column` that headers name only if cells differ in them; otherwise a note does.
CHOICES = ("budget", "protocol")
# Config key -> field of `Column` that holds its value.
MEASURED_ON = {
    "task": "task",
    "task.length": "length",
    "length": "length",
    "budget": "budget",
    "protocol": "protocol",
}
# Keys whose values are shown without the key.
NAMES = ("model", "task", "budget", "protocol")


class Value(NamedTuple):
    """A cell's value of a config key, sorted as numbers, then texts, then missing values.

    Attributes:
        order: sort key: the kind (0 number, 1 text, 2 missing) and the number.
        text: the displayed text.
    """

    order: tuple[int, float]
    text: str


class Side(NamedTuple):
    """A row or a column.

    Attributes:
        values: values of the keys of this side.
        measured_on: the `Column` shown on this side; `None` on the side without the task.
        variant: options that distinguish cells that share a place; empty in columns.
    """

    values: tuple[Value, ...]
    measured_on: Column | None
    variant: str = ""

    @property
    def order(self) -> tuple[Any, ...]:
        """Return the sort key of rows and columns."""
        return self.values, self.measured_on.order if self.measured_on else (), self.variant


@dataclass(frozen=True)
class Grid:
    """Cells in rows and columns.

    Attributes:
        stub: the header of the row labels.
        rows: the label of each row.
        columns: the two header lines of each column: `adding T=200` and `MSE ↓`, or `MSE ↓ (quick)`
            if budgets differ.
        cells: (row, column) -> cell.
        tasks_down: True if tasks are in rows, not in columns.
    """

    stub: str
    rows: list[str]
    columns: list[tuple[str, str]]
    cells: dict[tuple[int, int], Cell]
    tasks_down: bool


def arrange(cells: Sequence[Cell], rows: Sequence[str] = ROWS, cols: Sequence[str] = COLS) -> Grid:
    """Arrange cells in a grid by their values of config keys.

    Args:
        cells: as returned by `aggregate`.
        rows: one to three keys for the rows, as in `--where`: `model`, `optimizer.lr`.
        cols: one to three keys for the columns.

    Raises:
        ConfigError: as `check_keys`.
    """
    check_keys(cells, rows=rows, cols=cols)
    down = "task" in rows
    elsewhere = {MEASURED_ON[key]: None for key in (cols if down else rows) if key in MEASURED_ON}
    places: dict[tuple[Side, Side], list[Cell]] = {}
    for cell in cells:
        measured_on = replace(cell.column, **elsewhere)  # type: ignore[arg-type]
        row = Side(_values(cell, rows), measured_on if down else None)
        column = Side(_values(cell, cols), None if down else measured_on)
        places.setdefault((row, column), []).append(cell)
    placed = {
        (row._replace(variant=variant), column): cell
        for (row, column), rivals in places.items()
        for variant, cell in zip(_variants(rivals), rivals, strict=True)
    }
    downward = sorted({row for row, _ in placed}, key=lambda side: side.order)
    across = sorted({column for _, column in placed}, key=lambda side: side.order)
    at = {side: i for sides in (downward, across) for i, side in enumerate(sides)}
    differ = [name for name in CHOICES if len({getattr(c.column, name) for c in cells}) > 1]
    return Grid(
        stub=plain(", ".join(rows)),
        rows=[" · ".join(filter(None, _texts(side, rows, differ))) for side in downward],
        columns=[_texts(side, cols, differ) for side in across],
        cells={(at[row], at[column]): cell for (row, column), cell in placed.items()},
        tasks_down=down,
    )


def setting(cell: Cell, key: str) -> Any:
    """Return the value of a config key in a cell's runs; `None` if they have none."""
    value = _under(cell, key)[0]
    return None if value is MISSING else value


def setting_text(cell: Cell, key: str) -> str:
    """Return a config key and its value in a cell's runs, as in `dim=32`."""
    return _value(key, setting(cell, key)).text


def task_text(column: Column) -> str:
    """Return the task of a column with its length and variant, as in `adding T=200`."""
    task = task_with_size(column.task or "", column.length)
    return f"{task} [{plain(column.variant)}]" if column.variant else task


def measure_text(column: Column, choices: Sequence[str] = CHOICES) -> str:
    """Return what a column measures, as in `MSE ↓ (quick, ours)`.

    Args:
        column: the column.
        choices: those of `CHOICES` that are shown.
    """
    measure = metric_name(column.metric) if column.metric else "no score"
    if column.split and column.split != "test":
        measure = f"{plain(column.split)} {measure}"
    if column.direction:
        measure += f" {ARROWS[column.direction]}"
    chosen = [plain(value) for name in choices if (value := getattr(column, name))]
    return measure + (f" ({', '.join(chosen)})" if chosen else "")


def _texts(side: Side, keys: Sequence[str], choices: Sequence[str]) -> tuple[str, str]:
    task, measure = "", ""
    parts = []
    if side.measured_on:
        task, measure = task_text(side.measured_on), measure_text(side.measured_on, choices)
    for key, value in zip(keys, side.values, strict=True):
        if not (side.measured_on and key in MEASURED_ON):
            parts.append(value.text)
    label = ", ".join(filter(None, [task, *parts]))
    return (f"{label} ({plain(side.variant)})" if side.variant else label), measure


def _values(cell: Cell, keys: Sequence[str]) -> tuple[Value, ...]:
    return tuple(_value(key, setting(cell, key)) for key in keys)


def _under(cell: Cell, key: str) -> list[Any]:
    """Return the distinct values of a key in a cell's runs; `[MISSING]` if there are none."""
    known = {canonical(v): v for run in cell.records if (v := value_of(run, key)) is not MISSING}
    # A run that failed early may hold null where the others hold a value.
    if len(known) > 1:
        known.pop("null", None)
    return list(known.values()) or [MISSING]


def _value(key: str, value: Any) -> Value:
    text = "-" if value is None else value if isinstance(value, str) else shown(key, {key: value})
    if MEASURED_ON.get(key) == "length":
        text = f"T={text}"
    elif key not in NAMES:
        text = f"{leaf(key)}={text}"
    order = (2, 0.0) if value is None else (1, 0.0)
    if isinstance(value, int | float) and not isinstance(value, bool):
        order = 0, value
    return Value(order, plain(text))


def _variants(rivals: list[Cell]) -> list[str]:
    of_models: list[dict[str, Any]] = [
        {"model": cell.model} | model_options(cell.records, cell.parameters) for cell in rivals
    ]
    if len({cell.column for cell in rivals}) == 1:
        return tell_apart(of_models)
    of_tasks = [{"task": cell.column.task} | task_options(cell.records) for cell in rivals]
    return tell_apart([task | model for task, model in zip(of_tasks, of_models, strict=True)])


def check_keys(cells: Sequence[Cell], **sides: Sequence[str]) -> None:
    """Check that cells can be arranged by config keys.

    Args:
        cells: as returned by `aggregate`.
        sides: option of the command -> its keys: `rows=["model"], cols=["task"]`.

    Raises:
        ConfigError: if a side has no key or more than three, a key is on two sides, no run has a
            key, or its value differs between the seeds of a cell.
    """
    options = " or in ".join(f"--{name}" for name in sides)
    for keys in sides.values():
        if not 0 < len(keys) <= MOST_KEYS:
            raise ConfigError(f"rows and columns take 1 to {MOST_KEYS} keys each")
    keys = [key for side in sides.values() for key in side]
    names: list[Hashable] = [MEASURED_ON.get(key, key) for key in keys]
    for key, name in zip(keys, names, strict=True):
        if names.count(name) > 1:
            raise ConfigError(f"'{key}' can stand in one place only, in {options}")
        found = [_under(cell, key) for cell in cells]
        if found and all(values == [MISSING] for values in found):
            raise unknown_key(cells[0].records[0], key)
        if any(len(values) > 1 for values in found):
            raise ConfigError(
                f"'{key}' differs between seeds that are pooled: name a key of the configuration"
            )
