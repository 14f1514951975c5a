"""Rank runs by another of their metrics, so that tasks with different scores compare."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

from seqbench.errors import ConfigError
from seqbench.runs.record import Record
from seqbench.wording import is_accuracy, suggestion


def ranked_by(records: Iterable[Record], metric: str) -> list[Record]:
    """Return the records with `metric` as their score, measured on the split of their own score.

    Completed runs without the metric are left out. Baselines are kept where they are known in that
    metric.

    Raises:
        ConfigError: if no run has the metric.
    """
    records = list(records)
    directions = {record.score.metric: record.score.direction for record in records if record.score}
    kept: list[Record] = []
    known: set[str] = set()
    for record in records:
        own = record.score
        if own is None:
            kept.append(record)
            continue
        metrics = record.metrics.get(own.split, {})
        known |= metrics.keys()
        if own.metric == metric:
            kept.append(record)
        elif metric in metrics:
            rises = is_accuracy(metric) or metric.endswith("f1")
            usual: Literal["min", "max"] = "max" if rises else "min"
            direction = directions.get(metric, usual)
            score = replace(own, metric=metric, value=metrics[metric], direction=direction)
            baseline = record.baseline_of(metric)
            kept.append(replace(record, score=score, baseline=baseline, naive={}, optimum=None))
    if known and metric not in known:
        raise ConfigError(f"no run has a metric '{metric}'{suggestion(metric, known)}")
    return kept


def in_metric(metric: str, records: Sequence[Record]) -> Sequence[Record]:
    """Return the records with `metric` as their score if all that have a score have it."""
    scores = [(record.metrics, record.score) for record in records if record.score]
    known = all(metric in metrics.get(score.split, {}) for metrics, score in scores)
    return ranked_by(records, metric) if scores and known else records
