"""Groups records into the cells of a table, and never pools what differs.

A cell holds the runs whose configurations differ in the seed only. Where several cells compete for
one place (this model on that task), each gets a variant: the shortest list of what tells it from
its rivals, as in `tcn (kernel_size=7)`.
"""

import json
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import Any, Literal, NamedTuple, TypeVar

from seqbench.results.statistics import Statistics, describe
from seqbench.results.where import flatten
from seqbench.runs.identity import without_place
from seqbench.runs.record import Record
from seqbench.wording import plain

# A variant names as many differences as it takes to tell rivals apart, and others up to this many.
NAMED_DIFFERENCES = 3
# The key of a node for the hash of somebody's own code.
CODE = "_code_"
# Seconds, or time steps, that no run takes.
LARGEST = 1e18

canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Column:
    """What cells were measured on: those of one column may be compared.

    Attributes:
        task: the task's name.
        length: the task's size in time steps.
        budget: name of the budget.
        protocol: name of the protocol.
        metric: the metric that ranks models; `None` if no run came to a score.
        split: where it was measured.
        direction: `min` or `max`, whichever is better.
        variant: what tells the task from others that share all of the above; mostly empty.
    """

    task: str
    length: int | None
    budget: str | None
    protocol: str | None
    metric: str | None
    split: str | None
    direction: Literal["min", "max"] | None
    variant: str = ""

    @property
    def order(self) -> tuple[str, int, str, str, str, str]:
        """By task, then size."""
        choices = self.budget or "", self.protocol or ""
        return self.task, self.length or 0, *choices, self.variant, self.metric or ""


@dataclass(frozen=True)
class Cell:
    """Runs of one model on one task that differ in the seed only.

    Attributes:
        column: what they were measured on.
        model: the model's name.
        variant: what tells the configuration from rivals in the same place; mostly empty.
        parameters: trainable parameters; `None` if no run came to build the model.
        records: the runs, ordered by seed.
    """

    column: Column
    model: str
    variant: str
    parameters: int | None
    records: tuple[Record, ...]

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
    def by_seed(self) -> dict[int, float]:
        """Those scores by their seeds."""
        return {
            record.seed: record.score.value
            for record in self.records
            if record.status == "completed" and record.score and record.score.value is not None
        }

    @property
    def label(self) -> str:
        """The model with its variant, as in `tcn (kernel_size=7)`, harmless to any screen."""
        return plain(f"{self.model} ({self.variant})" if self.variant else self.model)

    @property
    def seconds(self) -> float | None:
        """Training time, a mean over the runs that completed."""
        return _mean(r.measured.get("seconds") for r in self.records if r.status == "completed")

    @property
    def compute(self) -> float | None:
        """An estimate of the floating-point operations of a run's training, a mean likewise.

        Six for each parameter and time step: a multiplication and an addition forward, twice that
        backward (Kaplan et al. 2020, section 2.1). It counts every weight at every time step, and
        so overstates a TCN that is read at the last step only.
        """
        tokens = _mean(record.tokens for record in self.records if record.status == "completed")
        return None if tokens is None or self.parameters is None else 6 * self.parameters * tokens

    @property
    def failed(self) -> int:
        """Runs that ended with an error."""
        return sum(record.status == "failed" for record in self.records)

    @property
    def diverged(self) -> int:
        """Runs that ended without a finite score, though not with an error."""
        return len(self.records) - self.failed - len(self.values)

    @property
    def solved(self) -> tuple[int, int] | None:
        """Runs that solved the task, and how many there are but for those that failed.

        `None` where no run says whether it did, since the task names no mark.
        """
        runs = [record for record in self.records if record.status != "failed"]
        if not any("solved" in record.notes for record in runs):
            return None
        return sum(r.status == "completed" and r.notes.get("solved") == 1 for r in runs), len(runs)

    @property
    def baseline(self) -> float | None:
        """What a predictor without memory scores."""
        return next((r.baseline for r in self.records if r.baseline is not None), None)

    @property
    def optimum(self) -> float | None:
        """The best possible score, where it is known."""
        return next((r.optimum for r in self.records if r.optimum is not None), None)


class _Measure(NamedTuple):
    metric: str
    split: str
    direction: Literal["min", "max"]
    data: str


def aggregate(records: Iterable[Record]) -> list[Cell]:
    """Group records into cells, ordered by task, size, model and variant."""
    records = list(records)
    keys = [_task_key(record) for record in records]
    measures = _settled(keys, [_measure(record) for record in records])
    codes = _settled(keys, [record.code.get("task") for record in records])
    groups = list(_grouped(records, zip(keys, measures, codes, strict=True)).items())
    # Columns that look alike so far: what else tells their tasks apart makes their variants.
    alike = _grouped(groups, (_column(group[0], measure) for (_, measure, _), group in groups))
    cells: list[Cell] = []
    for column, rivals in alike.items():
        variants = tell_apart([task_options(group) for _, group in rivals])
        for variant, (_, group) in zip(variants, rivals, strict=True):
            cells += _cells(replace(column, variant=variant), group)
    return sorted(cells, key=lambda cell: (cell.column.order, cell.model, cell.variant))


def _cells(column: Column, records: list[Record]) -> list[Cell]:
    cells = []
    keys = [(record.model, _model_key(record)) for record in records]
    sizes = _settled(keys, [record.parameters for record in records])
    codes = _settled(
        keys, [canonical(_codes(record)) if record.code else None for record in records]
    )
    groups = list(_grouped(records, zip(keys, sizes, codes, strict=True)).items())
    for model, rivals in _grouped(groups, (group[0].model for _, group in groups)).items():
        variants = tell_apart([model_options(group, size) for (_, size, _), group in rivals])
        for variant, ((_, size, _), group) in zip(variants, rivals, strict=True):
            runs = sorted(group, key=lambda record: (record.seed, record.run_id))
            cells.append(Cell(column, model, variant, size, tuple(runs)))
    return cells


def tell_apart(options: Sequence[dict[str, Any]]) -> list[str]:
    """For each of some rivals, the shortest list of options that tells it from the others.

    Args:
        options: the rivals' flat options, each different from every other.

    Returns:
        As in `kernel_size=7, lr=0.002`: options that all share are left out, and where there are
        many differences the number of those not named follows. One rival alone gets an empty text.
    """
    names = sorted({key for rival in options for key in rival}, key=_rank)
    # Most options are shared by all; they are not worth writing out.
    shared = {key for key in names if all(o.get(key) == options[0].get(key) for o in options)}
    texts = {key: [shown(key, rival) for rival in options] for key in names if key not in shared}
    differing = [key for key in texts if len(set(texts[key])) > 1]

    def groups(keys: list[str]) -> int:
        return len(set(zip(*(texts[key] for key in keys), strict=True))) if keys else 1

    chosen: list[str] = []
    while groups(chosen) < len(options) and len(chosen) < len(differing):
        rest = [key for key in differing if key not in chosen]
        chosen.append(max(rest, key=lambda key: groups([*chosen, key])))
    # What follows from other options is no news beside them.
    others = [key for key in differing if key not in chosen and not _follows(key)]
    chosen += others[: max(0, NAMED_DIFFERENCES - len(chosen))]
    unnamed = f"+{len(others)} more" if (others := [k for k in others if k not in chosen]) else ""
    leaves = [leaf(key) for key in differing]
    labels = []
    for i in range(len(options)):
        parts = [
            f"{leaf(key) if leaves.count(leaf(key)) == 1 else key}={texts[key][i]}"
            for key in sorted(chosen, key=_rank)
            if texts[key][i]
        ]
        labels.append(", ".join([*parts, unnamed] if unnamed else parts))
    if len(set(labels)) < len(labels):  # differences that look alike when written in short
        labels = [f"{label} #{i}" for i, label in enumerate(labels, start=1)]
    return labels


def _mean(values: Iterable[object]) -> float | None:
    # What was measured elsewhere may be anything.
    known = [float(v) for v in values if isinstance(v, int | float) and 0 <= v < LARGEST]
    return fmean(known) if known else None


def _settled(keys: Iterable[K], facts: Sequence[T | None]) -> list[T | None]:
    # A run that failed early does not know its size or its metric: its fellows with the same key
    # do.
    keys = list(keys)
    known: dict[K, T] = {}
    for key, fact in zip(keys, facts, strict=True):
        if fact is not None:
            known.setdefault(key, fact)
    return [known.get(key) if fact is None else fact for key, fact in zip(keys, facts, strict=True)]


def _grouped(items: Iterable[T], keys: Iterable[K]) -> dict[K, list[T]]:
    groups: dict[K, list[T]] = {}
    for item, key in zip(items, keys, strict=True):
        groups.setdefault(key, []).append(item)
    return groups


def _measure(record: Record) -> _Measure | None:
    if record.score is None:
        return None
    score = record.score
    return _Measure(score.metric, score.split, score.direction, canonical(record.data))


def _column(record: Record, measure: _Measure | None) -> Column:
    return Column(
        task=record.task,
        length=record.length,
        budget=record.budget,
        protocol=record.protocol,
        metric=measure.metric if measure else None,
        split=measure.split if measure else None,
        direction=measure.direction if measure else None,
    )


def _task_key(record: Record) -> Hashable:
    task = canonical(record.config.get("task"))
    return record.task, record.length, record.budget, record.protocol, task


def _model_key(record: Record) -> str:
    return canonical(_without_task(record.config))


def task_options(records: Sequence[Record]) -> dict[str, Any]:
    """What tells the task of some runs from others: its configuration and its data."""
    # One that failed early does not know its data.
    record = min(records, key=lambda record: (record.score is None, "task" not in record.code))
    code = {f"task.{CODE}": record.code["task"]} if "task" in record.code else {}
    return flatten({"task": record.config.get("task"), "data": record.data}) | code


def model_options(records: Sequence[Record], parameters: int | None) -> dict[str, Any]:
    """What tells some runs, which differ in the seed, from others on the same task."""
    # One of an earlier version does not know its code.
    record = min(records, key=lambda record: not record.code)
    return flatten(_without_task(record.config)) | _codes(record) | {"parameters": parameters}


def _codes(record: Record) -> dict[str, str]:
    return {f"{node}.{CODE}": code for node, code in record.code.items() if node != "task"}


def _without_task(config: dict[str, Any]) -> dict[str, Any]:
    kept = without_place(config)
    return {key: value for key, value in kept.items() if key not in ("seed", "task", "recipe")}


def _follows(key: str) -> bool:
    return key in ("parameters", "task.sha256") or key.startswith("data.")


def _rank(key: str) -> tuple[int, str]:
    sections = ("task", "model", "optimizer", "schedule", "trainer")
    section = key.partition(".")[0]
    place = sections.index(section) if section in sections else len(sections)
    return (len(sections) + 1 if _follows(key) else place), key


def leaf(key: str) -> str:
    """A key's own name, without the path to it."""
    # `optimizer._target_` says which optimizer it is.
    last = key.removesuffix("._target_").rpartition(".")[2]
    return "code" if last == CODE else last


def shown(key: str, options: dict[str, Any]) -> str:
    """A value in short, and no two values alike; nothing for an option that is not there."""
    if key not in options:
        return ""
    value = options[key]
    if key.endswith("._target_") and isinstance(value, str):
        for ours in ("torch.optim.", "seqbench.training.schedules.", "seqbench."):
            value = value.removeprefix(ours)
        return value
    digest = key.startswith("data.") or key == "task.sha256" or key.endswith(f".{CODE}")
    if digest and isinstance(value, str):
        return value[:12]
    if isinstance(value, str) and value.isidentifier() and value not in ("true", "false", "null"):
        return value
    if isinstance(value, list) and len(value) > 1 and len({canonical(v) for v in value}) == 1:
        return f"[{canonical(value[0])}]*{len(value)}"
    return canonical(value)
