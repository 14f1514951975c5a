"""Group records into the cells of a table, pooling only runs that differ in nothing but the seed.

If several cells share a place in the table (same model, same task), each gets a variant: a short
list of the options that distinguish it, as in `tcn (kernel_size=7)`.
"""

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import Any, Literal, TypeVar

from seqbench.config.compression import method
from seqbench.results.recipe import amount_differences
from seqbench.results.statistics import Statistics, describe, distinguishable
from seqbench.results.variants import CODE, METHOD, START, canonical, shown, tell_apart
from seqbench.results.where import flatten
from seqbench.runs.identity import completed, without_environment
from seqbench.runs.record import Record
from seqbench.user_files import SEQUENCE_FILES
from seqbench.wording import plain

# The logarithms of errors are averaged if the largest of a column is this many times the least.
DECADES = 100
# Options of tasks that change what a model reads or how it is trained, and not what is scored: they
# distinguish models, not columns. So does the look-back of forecasts.
READING = frozenset({"pool", "class_weight", "normalize", "calendar", "inputs", "shuffle"})
# Options of texts that change neither the text nor its number of characters.
TOKENS = frozenset({"tokens", "min_count", "vocab_size", "length", "context"})
# Options that name columns, which do not count for files of sequences.
COLUMNS = ("task.id", "task.time", "task.label")
# Seconds or time steps; larger values in a record are implausible and are ignored.
LARGEST = 1e18

Standing = Literal["best", "tied"]
Direction = Literal["min", "max"]
# Metric, split and direction of a score, and the hashes of its data.
Measure = tuple[str, str, Direction, str]
NO_MEASURE = None, None, None, ""
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Column:
    """The task and metric that cells were measured on; cells of one column may be compared.

    Attributes:
        task: the task's name.
        length: the sequence length in time steps; `None` of forecasts.
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
    direction: Direction | None
    variant: str = ""

    @property
    def order(self) -> tuple[str, int, str, str, str, str]:
        """Return the sort key: task, then length; numbers in the variant by their value."""
        choices = self.budget or "", self.protocol or ""
        variant = re.sub(r"\d+", lambda digits: digits[0].zfill(20), self.variant)
        return self.task, self.length or 0, *choices, variant, self.metric or ""


@dataclass(frozen=True)
class Cell:
    """Runs of one model on one task that differ in the seed only.

    Attributes:
        column: the task and metric they were measured on.
        model: the model's name.
        variant: options that distinguish cells of the same model and column; mostly empty.
        parameters: trainable parameters; `None` if no run got as far as building the model.
        records: the runs, ordered by seed.
        log: True if the errors of the column span decades, so that their logarithms are averaged.
    """

    column: Column
    model: str
    variant: str
    parameters: int | None
    records: tuple[Record, ...]
    log: bool = False

    @cached_property
    def scores(self) -> list[tuple[int, float]]:
        """Return seed and finite score of each completed run."""
        completed = [(r.seed, r.score) for r in self.records if r.status == "completed"]
        return [(seed, s.value) for seed, s in completed if s and s.value is not None]

    @cached_property
    def statistics(self) -> Statistics | None:
        """Return the statistics of the scores; `None` if there are none."""
        return describe([value for _, value in self.scores], self.log) if self.scores else None

    @property
    def start(self) -> str:
        """Return the run whose weights the model started from: `from=3f2a1b2c`; mostly empty."""
        name = shown(START, _model_config(self.records[0]))
        return f"{START}={name}" if name else ""

    @property
    def label(self) -> str:
        """Return the model with its variant, printable: `tcn (kernel_size=7)`."""
        return plain(f"{self.model} ({self.variant})" if self.variant else self.model)

    @property
    def seconds(self) -> float | None:
        """Return the mean training time of completed runs, in seconds."""
        return self.measured("seconds")

    def measured(self, name: str) -> float | None:
        """Return the mean of a measured number over completed runs; see `record.Measured`."""
        return self._mean(lambda record: record.measured.get(name))

    @property
    def compute(self) -> float | None:
        """Return the estimated training FLOP of a run, a mean over completed runs.

        The estimate is 6 FLOP per parameter and time step: 2 in the forward pass, 4 in the backward
        pass (Kaplan et al. 2020, section 2.1). It counts every weight at every time step, and so
        overestimates a TCN whose output is read at the last step only.
        """
        tokens = self._mean(lambda record: record.tokens)
        return None if tokens is None or self.parameters is None else 6 * self.parameters * tokens

    def _mean(self, fact: Callable[[Record], object]) -> float | None:
        facts = [fact(record) for record in self.records if record.status == "completed"]
        # Records from elsewhere may hold any value here.
        known = [float(v) for v in facts if isinstance(v, int | float) and 0 <= v < LARGEST]
        return fmean(known) if known else None

    @property
    def failed(self) -> int:
        """Return the number of runs that ended with an error."""
        return sum(record.status == "failed" for record in self.records)

    @property
    def diverged(self) -> int:
        """Return the number of runs that have no finite score but did not fail."""
        return len(self.records) - self.failed - len(self.scores)

    @property
    def lost(self) -> list[str]:
        """Return how many runs have no score, by reason: `1 diverged`, `2 failed`."""
        counts = {"diverged": self.diverged, "failed": self.failed}
        return [f"{count} {how}" for how, count in counts.items() if count]

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
    def bounds(self) -> dict[str, float]:
        """Return the scores that the mean is compared with, by name; see `Record.bounds`."""
        return {name: v for r in reversed(self.records) for name, v in r.bounds.items()}

    @property
    def baseline(self) -> float | None:
        """Return the score of a predictor without memory, or of the best naive one."""
        return next((r.baseline for r in self.records if r.baseline is not None), None)

    @property
    def optimum(self) -> float | None:
        """Return the best possible score, if known."""
        return next((r.optimum for r in self.records if r.optimum is not None), None)


def aggregate(records: Iterable[Record]) -> list[Cell]:
    """Group records into cells, ordered by task, size, model and variant."""
    records = list(records)
    keys = [
        (r.task, _length(r), r.budget, r.protocol, canonical(_task_node(r, is_reading=False)))
        for r in records
    ]
    measures = _settled(keys, [_measure(record) for record in records])
    codes = _settled(keys, [record.code.get("task") for record in records])
    groups = _grouped(records, zip(keys, measures, codes, strict=True))
    # Groups whose columns are equal so far get variants, from the options of their tasks.
    columns = (Column(*key[:4], *(measure or NO_MEASURE)[:3]) for key, measure, _ in groups)
    cells: list[Cell] = []
    for column, rivals in _grouped(groups.values(), columns).items():
        for variant, group in zip(tell_apart(list(map(task_options, rivals))), rivals, strict=True):
            members = _cells(replace(column, variant=_with_facts(variant, group[0])), group)
            log = _spans_decades(members)
            cells += [replace(cell, log=log) for cell in members]
    return sorted(cells, key=lambda cell: (cell.column.order, cell.model, cell.variant))


def _spans_decades(cells: Sequence[Cell]) -> bool:
    """Return True if the scores are positive errors, the largest `DECADES` times the least."""
    scores = [value for cell in cells for _, value in cell.scores]
    is_error = cells[0].column.direction == "min" and min(scores, default=0.0) > 0
    return is_error and max(scores) >= DECADES * min(scores)


def _with_facts(variant: str, record: Record) -> str:
    """Return a variant that names horizon and dataset, without which no score says much."""
    options = task_options([record])
    facts = {"horizon": options.get("task.horizon")}
    if (dataset := str(options.get("task.dataset", ""))).lower() not in record.task:
        facts["dataset"] = dataset
    named = [f"{name}={fact}" for name, fact in facts.items() if fact and f"{name}=" not in variant]
    return ", ".join([*named, *filter(None, [variant])])


def _cells(column: Column, records: list[Record]) -> list[Cell]:
    """Return the cells of the records of one column."""
    keys = [(record.model, canonical(_model_config(record))) for record in records]
    sizes = _settled(keys, [record.parameters for record in records])
    codes = [canonical(_codes(record)) if record.code else None for record in records]
    groups = _grouped(records, zip(keys, sizes, _settled(keys, codes), strict=True))
    cells = []
    for model, rivals in _grouped(groups.items(), (key[0] for key, _, _ in groups)).items():
        variants = tell_apart([model_options(group, size) for (_, size, _), group in rivals])
        for variant, ((_, size, _), group) in zip(variants, rivals, strict=True):
            runs = sorted(group, key=lambda record: (record.seed, record.run_id))
            cells.append(Cell(column, model, variant, size, tuple(runs)))
    return cells


def _measure(record: Record) -> Measure | None:
    if (score := record.score) is None:
        return None
    return (score.metric, score.split, score.direction, canonical(record.data))


def _settled(keys: Sequence[K], facts: Sequence[T | None]) -> list[T | None]:
    """Return the facts, missing ones taken from the first item with the same key.

    A run that failed early lacks its parameter count or metric.
    """
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


def standings(cells: Sequence[Cell]) -> list[Standing | None]:
    """Return the standing of each cell among the cells of its column.

    `best` has the best mean; `tied` does not differ significantly from it over their shared seeds.
    All others have `None`, as do cells that do not compete: those of a single run, those with a
    diverged run, since the mean of the remaining runs is biased, those trained for longer or
    shorter than most cells of the column, and the only cell that is left. If a single run, trained
    for as long, is better than the best mean, nothing is known to be best.
    """
    columns = _grouped(cells, (cell.column for cell in cells))
    competing = {column: _competing(members) for column, members in columns.items()}
    return [_standing(cell, competing[cell.column]) for cell in cells]


def _competing(cells: list[Cell]) -> list[Cell]:
    """Return the cells of a column that compete, the best one first."""
    sound = [cell for cell in cells if cell.scores and not cell.diverged]
    amounts = [amount_differences(cell.records[0].config) for cell in sound]
    several = [a for cell, a in zip(sound, amounts, strict=True) if len(cell.scores) > 1]
    # Among equally common amounts, that of the recipe.
    usual = max(several, key=lambda amount: (several.count(amount), not amount), default=None)
    alike = [cell for cell, amount in zip(sound, amounts, strict=True) if amount == usual]
    if sum(len(cell.scores) > 1 for cell in alike) < 2:
        return []
    alike.sort(key=_mean_score, reverse=alike[0].column.direction == "max")
    return [] if len(alike[0].scores) == 1 else [cell for cell in alike if len(cell.scores) > 1]


def _standing(cell: Cell, competing: list[Cell]) -> Standing | None:
    if not any(cell is rival for rival in competing):
        return None
    best = competing[0]
    if _mean_score(cell) == _mean_score(best):
        return "best"
    first, second = dict(cell.scores), dict(best.scores)
    return "tied" if distinguishable(first, second, cell.log) is False else None


def _mean_score(cell: Cell) -> float:
    assert cell.statistics is not None
    return cell.statistics.mean


def task_options(records: Sequence[Record]) -> dict[str, Any]:
    """Return the flat options that identify the task of these runs: what is scored, its code."""
    # Prefer a run with a score: one that failed early lacks its data hashes.
    record = min(records, key=lambda record: (record.score is None, "task" not in record.code))
    code = {f"task.{CODE}": record.code["task"]} if "task" in record.code else {}
    options = flatten({"task": _task_node(record, is_reading=False), "data": record.data}) | code
    if str(options.get("task.path")).lower().endswith(SEQUENCE_FILES):  # a file without columns
        return {key: value for key, value in options.items() if key not in COLUMNS}
    return options


def model_options(records: Sequence[Record], parameters: int | None) -> dict[str, Any]:
    """Return the flat options that distinguish these runs, one per seed, on their task."""
    # Prefer a run with code hashes: records of earlier versions have none.
    record = min(records, key=lambda record: not record.code)
    return flatten(_model_config(record)) | _codes(record) | {"parameters": parameters}


def _codes(record: Record) -> dict[str, str]:
    return {f"{node}.{CODE}": code for node, code in record.code.items() if node != "task"}


def _model_config(record: Record) -> dict[str, Any]:
    kept = without_environment(record.config)
    if "continues" in kept:  # the id of the parent depends on the seed; the note does not
        kept["continues"] = record.notes.get("continues", kept["continues"])
    if "init_sha256" in kept:
        digest, parent = kept.pop("init_sha256"), kept.pop("init_run", None)
        kept[START] = str(parent or digest)
        kept.pop("init_from", None)
    if (how := method(kept)) is not None:
        kept[METHOD] = how
    kept["task"] = _task_node(record, is_reading=True)
    return {key: value for key, value in kept.items() if key not in ("seed", "recipe")}


def _task_node(record: Record, is_reading: bool) -> Any:
    """Return the options of a run's task that are of `READING`, or the others."""
    node = record.config.get("task")
    if not isinstance(node, dict):
        return {} if is_reading else node
    node = completed(node)
    # The characters are those of the training text, or of the run that it started from.
    if "init_sha256" in record.config or node.get("characters") is None:
        node = {key: value for key, value in node.items() if key != "characters"}
    reading = READING | {"length"} if "horizon" in node else READING
    if _is_per_character(record, node):
        reading |= TOKENS
    return {key: value for key, value in node.items() if (key in reading) is is_reading}


def _is_per_character(record: Record, node: dict[str, Any]) -> bool:
    """Return True if a text's score does not depend on how it is cut into tokens."""
    return "tokens" in node and record.score is not None and record.score.metric == "bpc"


def _length(record: Record) -> int | None:
    node = record.config.get("task")
    is_reading = isinstance(node, dict) and ("horizon" in node or _is_per_character(record, node))
    return None if is_reading else record.length
