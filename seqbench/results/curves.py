"""Read learning curves from the event logs of runs and combine them over seeds."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from seqbench.runs.events import is_number, read_events
from seqbench.runs.record import RecordError


@dataclass(frozen=True)
class Curve:
    """A metric of one run over its steps.

    Attributes:
        steps: optimizer steps, increasing.
        values: the metric at each step, finite.
    """

    steps: tuple[int, ...] = ()
    values: tuple[float, ...] = ()

    def thinned(self, most: int) -> "Curve":
        """Return at most `most` (2 or more) evenly chosen points, including the first and last."""
        count = len(self.steps)
        if count <= most:
            return self
        chosen = [round(i * (count - 1) / (most - 1)) for i in range(most)]
        return Curve(tuple(self.steps[i] for i in chosen), tuple(self.values[i] for i in chosen))


@dataclass(frozen=True)
class Band:
    """Curves of several seeds combined.

    Attributes:
        steps: steps at which at least one curve has a value.
        median: median at each step, over the curves that have a value there.
        low: minimum at each step.
        high: maximum at each step.
        n: number of curves.
    """

    steps: tuple[int, ...]
    median: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    n: int


# Split and metric, as in `("valid", "mse")`, -> curve.
Curves = dict[tuple[str, str], Curve]


def read_curves(folder: Path) -> Curves:
    """Return the curves of a run by split and metric.

    The result is empty if the log is missing or damaged.
    """
    try:
        events = read_events(folder / "events.jsonl")
    except RecordError:
        return {}
    points: dict[tuple[str, str], dict[int, float]] = {}
    for event in events:
        step, split = event.get("step"), event.get("split")
        if not is_number(step) or not isinstance(split, str):
            continue
        for metric, value in event.items():
            if metric not in ("step", "split") and is_number(value):
                points.setdefault((split, metric), {})[int(step)] = float(value)
    return {
        key: Curve(tuple(sorted(found)), tuple(found[step] for step in sorted(found)))
        for key, found in points.items()
    }


def band(curves: Sequence[Curve]) -> Band:
    """Combine the curves of several seeds, at every step at which any of them has a value."""
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
    """Return True if all values are positive and they span more than a factor of 30."""
    known = list(values)
    return bool(known) and min(known) > 0 and max(known) / min(known) > 30
