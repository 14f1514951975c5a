"""Group records into the cells of a table, pooling only runs that differ in nothing but the seed.

If several cells share a place in the table (same model, same task), each gets a variant: a short
list of the options that distinguish it, as in `tcn (kernel_size=7)`.
"""

import json
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import Any, Literal, NamedTuple, TypeVar

from seqbench.results.statistics import Statistics, describe
from seqbench.results.where import flatten
from seqbench.runs.identity import without_environment
from seqbench.runs.record import Record
from seqbench.wording import plain

# A variant names as many options as needed to be unique, and further ones up to this many.
NAMED_DIFFERENCES = 3
# Key within a config node under which the hash of custom code is listed.
CODE = "_code_"
# Seconds or time steps; larger values in a record are implausible and are ignored.
LARGEST = 1e18

canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Column:
    """The task and metric that cells were measured on; cells of one column may be compared.

    Attributes:
        task: the task's name.
        length: the sequence length in time steps.
        budget: name of the budget.
        protocol: name of the protocol.
        metric: the metric that ranks models; `None` if no run has a score.
        split: the split it was measured on.
        direction: `min` or `max`, whichever is better.
        variant: options that distinguish tasks that share all of the above; mostly empty.
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
        """Return the sort key: task, then length."""
        choices = self.budget or "", self.protocol or ""
        return self.task, self.length or 0, *choices, self.variant, self.metric or ""


@dataclass(frozen=True)
class Cell:
    """Runs of one model on one task that differ in the seed only.

    Attributes:
        column: the task and metric they were measured on.
        model: the model's name.
        variant: options that distinguish cells of the same model and column; mostly empty.
        parameters: trainable parameters; `None` if no run got as far as building the model.
        records: the runs, ordered by seed.
    """

    column: Column
    model: str
    variant: str
    parameters: int | None
    records: tuple[Record, ...]

    @property
    def values(self) -> list[float]:
        """Return the finite scores of completed runs."""
        scores = [r.score for r in self.records if r.status == "completed"]
        return [score.value for score in scores if score and score.value is not None]

    @cached_property
    def statistics(self) -> Statistics | None:
        """Return the statistics of `values`; `None` if there are none."""
        return describe(self.values) if self.values else None

    @property
    def by_seed(self) -> dict[int, float]:
        """Return seed -> finite score, for completed runs."""
        return {
            record.seed: record.score.value
            for record in self.records
            if record.status == "completed" and record.score and record.score.value is not None
        }

    @property
    def label(self) -> str:
        """Return the model with its variant, printable: `tcn (kernel_size=7)`."""
        return plain(f"{self.model} ({self.variant})" if self.variant else self.model)

    @property
    def seconds(self) -> float | None:
        """Return the mean training time of completed runs, in seconds."""
        return _mean(r.measured.get("seconds") for r in self.records if r.status == "completed")

    @property
    def compute(self) -> float | None:
        """Return the estimated training FLOP of a run, a mean over completed runs.

        The estimate is 6 FLOP per parameter and time step: 2 in the forward pass, 4 in the backward
        pass (Kaplan et al. 2020, section 2.1). It counts every weight at every time step, and so
        overestimates a TCN whose output is read at the last step only.
        """
        tokens = _mean(record.tokens for record in self.records if record.status == "completed")
        return None if tokens is None or self.parameters is None else 6 * self.parameters * tokens

    @property
    def failed(self) -> int:
        """Return the number of runs that ended with an error."""
        return sum(record.status == "failed" for record in self.records)

    @property
    def diverged(self) -> int:
        """Return the number of runs that have no finite score but did not fail."""
        return len(self.records) - self.failed - len(self.values)

    @property
    def solved(self) -> tuple[int, int] | None:
        """Return how many runs solved the task, and how many did not fail.

        `None` if no run records `solved`: the task defines no such threshold.
        """
        runs = [record for record in self.records if record.status != "failed"]
        if not any("solved" in record.notes for record in runs):
            return None
        return sum(r.status == "completed" and r.notes.get("solved") == 1 for r in runs), len(runs)

    @property
    def baseline(self) -> float | None:
        """Return the score of a predictor without memory."""
        return next((r.baseline for r in self.records if r.baseline is not None), None)

    @property
    def optimum(self) -> float | None:
        """Return the best possible score, if known."""
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
    # Groups whose columns are equal so far get variants, from the options of their tasks.
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
    """Return a short label for each rival, made of the options that distinguish it.

    Args:
        options: each rival's flat options; no two are equal.

    Returns:
        Labels like `kernel_size=7, lr=0.002`, without the options that all rivals share. If not all
        differing options are named, the label ends with their number: `+4 more`. Labels that would
        be equal end with ` #1`, ` #2`. A single rival gets an empty label.
    """
    names = sorted({key for rival in options for key in rival}, key=_rank)
    # Most options are shared by all: skip formatting them.
    shared = {key for key in names if all(o.get(key) == options[0].get(key) for o in options)}
    texts = {key: [shown(key, rival) for rival in options] for key in names if key not in shared}
    differing = [key for key in texts if len(set(texts[key])) > 1]

    def groups(keys: list[str]) -> int:
        return len(set(zip(*(texts[key] for key in keys), strict=True))) if keys else 1

    chosen: list[str] = []
    while groups(chosen) < len(options) and len(chosen) < len(differing):
        rest = [key for key in differing if key not in chosen]
        chosen.append(max(rest, key=lambda key: groups([*chosen, key])))
    # Options that follow from others (data hashes, parameter counts) add no information.
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
    if len(set(labels)) < len(labels):  # differences that the short form hides
        labels = [f"{label} #{i}" for i, label in enumerate(labels, start=1)]
    return labels


def _mean(values: Iterable[object]) -> float | None:
    # Records from elsewhere may hold any value here.
    known = [float(v) for v in values if isinstance(v, int | float) and 0 <= v < LARGEST]
    return fmean(known) if known else None


def _settled(keys: Iterable[K], facts: Sequence[T | None]) -> list[T | None]:
    # A run that failed early lacks its parameter count or metric: take it from runs with the same
    # key.
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
    """Return the flat options that identify the task of these runs: its config, data and code."""
    # Prefer a run with a score: one that failed early lacks its data hashes.
    record = min(records, key=lambda record: (record.score is None, "task" not in record.code))
    code = {f"task.{CODE}": record.code["task"]} if "task" in record.code else {}
    return flatten({"task": record.config.get("task"), "data": record.data}) | code


def model_options(records: Sequence[Record], parameters: int | None) -> dict[str, Any]:
    """Return the flat options that distinguish these runs, one per seed, on their task."""
    # Prefer a run with code hashes: records of earlier versions have none.
    record = min(records, key=lambda record: not record.code)
    return flatten(_without_task(record.config)) | _codes(record) | {"parameters": parameters}


def _codes(record: Record) -> dict[str, str]:
    return {f"{node}.{CODE}": code for node, code in record.code.items() if node != "task"}


def _without_task(config: dict[str, Any]) -> dict[str, Any]:
    kept = without_environment(config)
    return {key: value for key, value in kept.items() if key not in ("seed", "task", "recipe")}


def _follows(key: str) -> bool:
    return key in ("parameters", "task.sha256") or key.startswith("data.")


def _rank(key: str) -> tuple[int, str]:
    sections = ("task", "model", "optimizer", "schedule", "trainer")
    section = key.partition(".")[0]
    place = sections.index(section) if section in sections else len(sections)
    return (len(sections) + 1 if _follows(key) else place), key


def leaf(key: str) -> str:
    """Return the last part of a dotted key; the node's name for `_target_`, `code` for hashes."""
    last = key.removesuffix("._target_").rpartition(".")[2]
    return "code" if last == CODE else last


def shown(key: str, options: dict[str, Any]) -> str:
    """Return an option's value as a short text; an empty text if the option is missing."""
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
