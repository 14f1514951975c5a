"""What a job will cost, told from runs like it that are on record."""

import heapq
import json
import statistics
from collections import defaultdict
from collections.abc import Hashable, Iterable
from typing import Any

from seqbench.configuration import Config
from seqbench.launch.job import Job
from seqbench.runs.identity import without_place
from seqbench.runs.record import Record

# What says how long a training is; the first that a configuration has.
LENGTHS = ("steps", "epochs")


class Costs:
    """Seconds of training that records tell of.

    Args:
        records: of runs that are over.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self.same: dict[Hashable, list[float]] = defaultdict(list)
        self.similar: dict[Hashable, list[float]] = defaultdict(list)
        for record in records:
            seconds = record.measured.get("seconds")
            config = record.config
            if record.status != "completed" or not isinstance(seconds, int | float):
                continue
            self.same[but_seed(config)].append(seconds)
            if (length := length_of(config)) is not None:
                self.similar[kind(config)].append(seconds / length)

    def of(self, job: Job) -> float | None:
        """Seconds that a job will train: as long as the same run with other seeds, or else as long
        for each step as runs of this model on this task at this size; `None` if there are none.
        """
        config = without_place(job.config)
        if known := self.same.get(but_seed(config)):
            return statistics.median(known)
        rates, length = self.similar.get(kind(config)), length_of(config)
        return statistics.median(rates) * length if rates and length is not None else None


def wall_clock(costs: Iterable[float], places: int) -> float:
    """Seconds until jobs are over that take so long each, begun in this order, `places` at a time.

    Args:
        costs: seconds.
        places: at least one.
    """
    free_at = [0.0] * places
    for cost in costs:
        heapq.heapreplace(free_at, free_at[0] + cost)
    return max(free_at)


def but_seed(config: Config) -> str:
    """All of a configuration but its seed."""
    return canonical({key: value for key, value in config.items() if key != "seed"})


def kind(config: Config) -> Hashable:
    """What the time of a step depends on most."""
    trainer = config.get("trainer") or {}
    unit = next((name for name in LENGTHS if trainer.get(name) is not None), None)
    size = (trainer.get("batch_size"), trainer.get("precision"), unit)
    return canonical([config.get("task"), config.get("model"), size])


def length_of(config: Config) -> float | None:
    """Of a training, in steps or epochs."""
    trainer = config.get("trainer") or {}
    values = (trainer.get(name) for name in LENGTHS)
    return next((v for v in values if isinstance(v, int | float) and v > 0), None)


def canonical(value: Any) -> str:
    """The same text for the same values."""
    return json.dumps(value, sort_keys=True)
