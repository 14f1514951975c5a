"""Compute the contents of figures: curves, scores along an axis, Pareto front, power law."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeGuard

from seqbench.config.compression import method
from seqbench.errors import ConfigError
from seqbench.results.cells import Cell, Column
from seqbench.results.curves import Band, Curve, band, read_curves
from seqbench.results.statistics import FEWEST_SEEDS, t_quantile
from seqbench.results.tables.layout import check_keys, setting, setting_text
from seqbench.results.where import value_of
from seqbench.wording import plain

# Axis limit: larger values are not drawn, nor values below 1e-30 on a logarithmic axis.
LARGEST = 1e30
# A curve is read from the first split that has it; runs that select on test have no validation.
SPLITS = ("valid", "test", "train")
# Maximum number of metrics that an error message lists.
LISTED = 8
# Measured numbers along the x axis.
MEASURED = ("seconds", "bytes", "latency")


@dataclass(frozen=True)
class Line:
    """A metric of one config over training.

    Attributes:
        cell: the runs.
        split: the split it was measured on.
        xs: training steps or epochs.
        band: median, minimum and maximum over seeds at each of `xs`.
    """

    cell: Cell
    split: str
    xs: tuple[float, ...]
    band: Band


@dataclass(frozen=True)
class Point:
    """The score of one config at its x value.

    Attributes:
        cell: the runs; points of a model with the same variant look alike: how the weights were
            made smaller or which they started from, and the value of `by`.
        x: the x value.
        score: mean over seeds.
        bar: ends of the 95% confidence interval of the mean; `None` below three seeds.
    """

    cell: Cell
    x: float
    score: float
    bar: tuple[float, float] | None


def curve_panels(
    cells: Sequence[Cell], folders: Mapping[str, Path], metric: str | None, x: str
) -> dict[Column, list[Line]]:
    """Return the curves of a metric over training, one panel per `Column`.

    Args:
        cells: as returned by `aggregate`.
        folders: run_id -> run folder.
        metric: name of the metric, taken from the first of `SPLITS` that has it; `None` for the
            metric that ranks models.
        x: `steps`, or `epochs` for runs whose duration was set in epochs.

    Raises:
        ConfigError: if no run has such a curve.
    """
    if x not in ("steps", "epochs"):
        raise ConfigError(f"curves go over steps or epochs, not '{x}'")
    panels: dict[Column, list[Line]] = {}
    known: set[str] = set()
    for cell in cells:
        curves = [read_curves(folders[record.run_id]) for record in cell.records]
        known |= {name for of_run in curves for _, name in of_run}
        wanted = metric or cell.column.metric or ""
        unit = 1.0 if x == "steps" else _epochs_per_step(cell)
        for split in SPLITS:
            found = [_drawable(of_run.get((split, wanted), Curve())) for of_run in curves]
            together = band([curve for curve in found if curve.steps])
            if unit and together.steps:
                xs = tuple(step * unit for step in together.steps)
                panels.setdefault(cell.column, []).append(Line(cell, split, xs, together))
                break
    if not panels and x == "epochs":
        raise ConfigError("no run with such a curve was given its length in trainer.epochs")
    if not panels:
        raise ConfigError(f"no run has a curve of '{metric or 'its score'}' ({_listed(known)})")
    return panels


def point_panels(cells: Sequence[Cell], x: str, by: str | None = None) -> dict[Column, list[Point]]:
    """Return the scores along an axis, one panel per `Column`.

    Args:
        cells: as returned by `aggregate`.
        x: `length`, `parameters`, `compute`, one of `MEASURED`, or a config key.
        by: a config key or `parameters`; points of a model look alike if they have the same value.

    Raises:
        ConfigError: if no run has a score and a number under `x`.
    """
    if x not in ("length", "compute", *MEASURED):
        check_keys(cells, x=[x])
    if by is not None:
        check_keys(cells, by=[by])
    panels: dict[Column, list[Point]] = {}
    for cell in cells:
        place = _place(cell, x)
        # Arithmetic means, since a curve may lead through columns of both kinds.
        sample = replace(cell, log=False).statistics
        if place is None or sample is None or not _is_number(sample.mean):
            continue
        column = cell.column
        # What varies along the x axis must not split panels.
        if x in ("length", "task.length"):
            column = replace(column, length=None)
        if x.startswith("task."):
            column = replace(column, variant="")
        bar = None
        if sample.n >= FEWEST_SEEDS and sample.low is not None and sample.high is not None:
            bar = sample.low, sample.high
        how = method(cell.records[0].config) or cell.start
        named = [how, "" if by is None else setting_text(cell, by)]
        point = Point(
            replace(cell, variant=", ".join(filter(None, named))), place, sample.mean, bar
        )
        panels.setdefault(column, []).append(point)
    if not panels:
        raise ConfigError(f"no run with a score has a number under '{x}'")
    return panels


def best_along(points: Iterable[Point], direction: str | None) -> list[Point]:
    """Return the point with the best score at every x value, in increasing x."""
    sign = -1 if direction == "max" else 1
    best: dict[float, Point] = {}
    for point in points:
        if point.x not in best or sign * point.score < sign * best[point.x].score:
            best[point.x] = point
    return [best[x] for x in sorted(best)]


def front(
    points: Iterable[tuple[float, float]], direction: str | None
) -> list[tuple[float, float]]:
    """Return the Pareto front: the points better than all that cost no more, by increasing cost.

    Args:
        points: (cost, score) of each.
        direction: `min` or `max`, whichever score is better; `None` counts as `min`.
    """
    sign = -1 if direction == "max" else 1
    chosen: list[tuple[float, float]] = []
    for cost, score in sorted(points, key=lambda point: (point[0], sign * point[1])):
        if not chosen or sign * score < sign * chosen[-1][1]:
            chosen.append((cost, score))
    return chosen


class PowerLaw(NamedTuple):
    """A fit of `y = exp(intercept) * x ** exponent`.

    Attributes:
        exponent: the exponent.
        half: half of the exponent's 95% confidence interval (Student's t); `None` for two points.
        intercept: logarithm of the factor, which may be too large for a float.
    """

    exponent: float
    half: float | None
    intercept: float

    def at(self, x: float) -> float:
        """Return the fitted y at an x."""
        return math.exp(self.intercept + self.exponent * math.log(x))


def power_law(points: Sequence[tuple[float, float]]) -> PowerLaw:
    """Fit a power law by least squares of the logarithms.

    Args:
        points: (x, y) of each, all positive, with at least two different x.
    """
    us, vs = [math.log(x) for x, _ in points], [math.log(y) for _, y in points]
    u, v = math.fsum(us) / len(us), math.fsum(vs) / len(vs)
    spread = math.fsum((a - u) ** 2 for a in us)
    exponent = math.fsum((a - u) * (b - v) for a, b in zip(us, vs, strict=True)) / spread
    half = None
    if (df := len(points) - 2) > 0:
        rest = math.fsum((b - v - exponent * (a - u)) ** 2 for a, b in zip(us, vs, strict=True))
        half = t_quantile(df) * math.sqrt(rest / df / spread)
    return PowerLaw(exponent, half, v - exponent * u)


def _listed(names: Iterable[str]) -> str:
    found = sorted({plain(name)[:40] for name in names})
    more = ", ..." if len(found) > LISTED else ""
    return f"there are: {', '.join(found[:LISTED])}{more}" if found else "there are none"


def _epochs_per_step(cell: Cell) -> float | None:
    """Return epochs per step, from a completed run without early stop, or `None`."""
    for record in cell.records:
        epochs = value_of(record, "trainer.epochs")
        whole = value_of(record, "trainer.stop_when_solved") is not True
        if record.status == "completed" and record.steps and whole and _is_number(epochs):
            return float(epochs) / record.steps
    return None


def _drawable(curve: Curve) -> Curve:
    kept = [i for i, value in enumerate(curve.values) if abs(value) < LARGEST]
    return Curve(tuple(curve.steps[i] for i in kept), tuple(curve.values[i] for i in kept))


def _place(cell: Cell, x: str) -> float | None:
    own = {"length": cell.column.length, "compute": cell.compute}
    if x in MEASURED:
        return cell.measured(x)
    value = own[x] if x in own else setting(cell, x)
    return float(value) if _is_number(value) else None


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST
