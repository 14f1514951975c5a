"""Learning curves: what the events of runs say, step by step, and seeds taken together."""

import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from seqbench.results.collect import read_events
from seqbench.runs.record import RecordError


@dataclass(frozen=True)
class Curve:
    """A metric of one run over its steps.

    Attributes:
        steps: optimiser steps, rising.
        values: the metric at each, finite.
    """

    steps: tuple[int, ...] = ()
    values: tuple[float, ...] = ()

    def thinned(self, most: int) -> "Curve":
        """At most so many points of it, evenly chosen, the first and the last among them."""
        count = len(self.steps)
        if count <= most:
            return self
        chosen = [round(i * (count - 1) / (most - 1)) for i in range(most)]
        return Curve(tuple(self.steps[i] for i in chosen), tuple(self.values[i] for i in chosen))


@dataclass(frozen=True)
class Band:
    """Curves of several seeds as one.

    Attributes:
        steps: at which any of them has a value.
        median: over those that have one there.
        low: the smallest of them.
        high: the largest.
        n: how many seeds there are.
    """

    steps: tuple[int, ...]
    median: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    n: int


def read_curves(folder: Path) -> dict[tuple[str, str], Curve]:
    """All curves of a run, by split and metric: `("valid", "mse")`, `("train", "loss")`.

    A log that is missing or damaged has none.
    """
    try:
        events = read_events(folder / "events.jsonl")
    except RecordError:
        return {}
    points: dict[tuple[str, str], dict[int, float]] = {}
    for event in events:
        step, split = event.get("step"), event.get("split")
        if not _is_number(step) or not isinstance(split, str):
            continue
        for metric, value in event.items():
            if metric not in ("step", "split") and _is_number(value):
                points.setdefault((split, metric), {})[int(step)] = float(value)
    return {
        key: Curve(tuple(sorted(found)), tuple(found[step] for step in sorted(found)))
        for key, found in points.items()
    }


def band(curves: Sequence[Curve]) -> Band:
    """Seeds taken together, at every step that any of them was measured at."""
    at: dict[int, list[float]] = {}
    for curve in curves:
        for step, value in zip(curve.steps, curve.values, strict=True):
            at.setdefault(step, []).append(value)
    steps = sorted(at)
    return Band(
        steps=tuple(steps),
        median=tuple(statistics.median(at[step]) for step in steps),
        low=tuple(min(at[step]) for step in steps),
        high=tuple(max(at[step]) for step in steps),
        n=len(curves),
    )


def spans_decades(values: Iterable[float]) -> bool:
    """Whether values are best seen on a logarithmic axis: positive, and a factor of 30 apart."""
    known = list(values)
    return bool(known) and min(known) > 0 and max(known) / min(known) > 30


def _is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is a finite number: in a folder of somebody else's there may be anything."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max
