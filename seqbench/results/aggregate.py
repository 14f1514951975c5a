"""Groups records into the cells of a table, and never pools what differs.

A cell holds the runs whose configurations differ in the seed only. Where several cells compete for
one place (this model on that task), each gets a variant: the shortest list of what tells it from
its rivals, as in `tcn (kernel_size=7)`.
"""

import json
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeVar

from seqbench.results.statistics import Statistics, describe
from seqbench.results.where import flatten
from seqbench.runs.identity import OUTSIDE
from seqbench.runs.record import Record

# A variant names at least what tells it from its rivals, and more differences up to this many.
NAMED_DIFFERENCES = 3


@dataclass(frozen=True)
class Column:
    """What a cell was measured on: cells of one column may be compared.

    Attributes:
        task: the task's name.
        length: the task's size in time steps.
        budget: name of the budget.
        protocol: name of the protocol.
        variant: what tells its task from others that share all of the above; mostly empty.
        metric: the metric that ranks models; `None` if no run came to a score.
        split: where it was measured.
        direction: `min` or `max`, whichever is better.
    """

    task: str
    length: int | None
    budget: str | None
    protocol: str | None
    variant: str = ""
    metric: str | None = None
    split: str | None = None
    direction: Literal["min", "max"] | None = None


@dataclass(frozen=True)
class Cell:
    """Runs of one model on one task that differ in the seed only.

    Attributes:
        column: what was measured.
        model: the model's name.
        variant: what tells its configuration from rivals in the same place; mostly empty.
        parameters: trainable parameters; `None` if no run came to build the model.
        records: all its runs, ordered by seed.
    """

    column: Column
    model: str
    variant: str
    parameters: int | None
    records: tuple[Record, ...]
    flags: list[str] = field(default_factory=list, init=False, compare=False)

    @property
    def values(self) -> list[float]:
        """Scores of the runs that completed with a finite one."""
        scores = [r.score for r in self.records if r.status == "completed"]
        return [score.value for score in scores if score and score.value is not None]

    @cached_property
    def statistics(self) -> Statistics | None:
        """Over `values`; `None` where there are none."""
        return describe(self.values) if self.values else None

    @property
    def failed(self) -> int:
        """Runs that ended with an error."""
        return sum(record.status == "failed" for record in self.records)

    @property
    def diverged(self) -> int:
        """Runs whose loss or score was no finite number."""
        return len(self.records) - self.failed - len(self.values)

    @property
    def solved(self) -> tuple[int, int] | None:
        """Runs that solved the task, and how many could have: those that failed do not count.

        `None` where no run says whether it did, since the task names no mark.
        """
        runs = [record for record in self.records if record.status != "failed"]
        if not any("solved" in record.notes for record in runs):
            return None
        solved = [r.status == "completed" and r.notes.get("solved") == 1 for r in runs]
        return sum(solved), len(runs)

    @property
    def baseline(self) -> float | None:
        """What a predictor without memory scores."""
        return next((r.baseline for r in self.records if r.baseline is not None), None)

    @property
    def optimum(self) -> float | None:
        """The best possible score, where it is known."""
        return next((r.optimum for r in self.records if r.optimum is not None), None)


def aggregate(records: Iterable[Record]) -> list[Cell]:
    """Group records into cells, in the order of task, size, model and variant."""
    placed = _place(list(records))
    columns: dict[Column, dict[str, list[Record]]] = {}
    for record, column, task_key in placed:
        columns.setdefault(column, {}).setdefault(task_key, []).append(record)
    cells: list[Cell] = []
    for column, tasks in columns.items():
        variants = tell_apart([_task_options(group[0]) for group in tasks.values()])
        for variant, group in zip(variants, tasks.values(), strict=True):
            cells += _cells_of(_with_variant(column, variant), group)
    return sorted(cells, key=_order)
