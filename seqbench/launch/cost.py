"""Estimate the training time of jobs from the records of similar runs."""

import heapq
import json
import statistics
from collections import defaultdict
from collections.abc import Hashable, Iterable
from typing import Any

from seqbench.config import Config
from seqbench.launch.job import Job
from seqbench.runs.identity import without_environment
from seqbench.runs.record import Record

# The trainer options that set the length of a training; the first that is set counts.
LENGTHS = ("steps", "epochs")


class Costs:
    """Training times of recorded runs, and the estimates that follow from them.

    Args:
        records: records of finished runs; those that did not complete are ignored.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self.same: dict[Hashable, list[float]] = defaultdict(list)
        self.similar: dict[Hashable, list[float]] = defaultdict(list)
        for record in records:
            seconds = record.measured.get("seconds")
            config = without_environment(record.config)
            if record.status != "completed" or not isinstance(seconds, int | float):
                continue
            self.same[but_seed(config)].append(seconds)
            if (length := length_of(config)) is not None:
                self.similar[kind(config)].append(seconds / length)

    def of(self, job: Job) -> float | None:
        """Return the estimated training time of a job in seconds.

        It is the median over the same config with any seed. Without such records it is the job's
        length times the median time per step (or epoch) over runs of the same `kind`.

        Returns:
            Seconds; `None` if no record is similar.
        """
        config = without_environment(job.config)
        if known := self.same.get(but_seed(config)):
            return statistics.median(known)
        rates, length = self.similar.get(kind(config)), length_of(config)
        return statistics.median(rates) * length if rates and length is not None else None


def wall_clock(costs: Iterable[float], places: int) -> float:
    """Return the seconds until all jobs end, started in this order, `places` at a time.

    Args:
        costs: seconds of each job.
        places: number of jobs at a time, at least 1.
    """
    free_at = [0.0] * places
    for cost in costs:
        heapq.heapreplace(free_at, free_at[0] + cost)
    return max(free_at)


def but_seed(config: Config) -> str:
    """Return a config without its seed, as canonical text."""
    return canonical({key: value for key, value in config.items() if key != "seed"})


def kind(config: Config) -> Hashable:
    """Return a key for runs that take about the same time per step.

    It covers task, model, batch size, precision, and the unit of the length (steps or epochs).
    """
    trainer = config.get("trainer") or {}
    unit = next((name for name in LENGTHS if trainer.get(name) is not None), None)
    size = (trainer.get("batch_size"), trainer.get("precision"), unit)
    return canonical([config.get("task"), config.get("model"), size])


def length_of(config: Config) -> float | None:
    """Return the length of a training in steps or epochs; `None` if neither is positive."""
    trainer = config.get("trainer") or {}
    values = (trainer.get(name) for name in LENGTHS)
    return next((v for v in values if isinstance(v, int | float) and v > 0), None)


def canonical(value: Any) -> str:
    """Return a value as JSON with sorted keys: equal values give equal text."""
    return json.dumps(value, sort_keys=True)
