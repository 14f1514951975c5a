"""Draw figures: learning curves, scaling, and score against cost.

A figure has one panel per `Column` (task and metric) and one legend outside. A model has the
report's colour; a config has the same dash pattern and marker in all panels, so that it is
recognizable in grayscale. The same records give the same bytes.
"""

import io
import math
import textwrap
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, TypeVar

from seqbench.errors import ConfigError
from seqbench.results.cells import Cell, Column
from seqbench.results.curves import spans_decades
from seqbench.results.plots.data import (
    Line,
    Point,
    best_along,
    curve_panels,
    front,
    point_panels,
    power_law,
)
from seqbench.results.tables.layout import CHOICES, task_text
from seqbench.runs import atomic
from seqbench.runs.record import BEST_POSSIBLE
from seqbench.wording import is_accuracy, number, plain

try:
    import matplotlib.style
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from seqbench.results.plots.axes import (
        DASHES_OF_BASELINES,
        GREY,
        STYLE,
        Scale,
        Styles,
        bounds_of,
        draw_bound,
        draw_points,
        fitted,
        is_log,
        is_logit,
        label_axes,
        styles_of,
    )
except ImportError:
    raise ConfigError("a plot needs matplotlib: pip install 'seqbench[plot]'") from None

# Metadata to suppress per file format: the time or program that wrote it.
METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
    "png": {"Software": None},
}
# Width and height of a panel in inches.
PANEL = 3.7, 2.9
# Characters per line of a panel's title.
TITLE = 36
MOST_PANELS, MOST_NAMES = 36, 60
# Maximum number of markers on a line.
MARKED = 8
# A power law is fitted to at least 3 x values that span at least a factor of 2.
FEWEST_TO_FIT, SPAN_TO_FIT = 3, 2
# A bound further from the scores than this factor, and than they are apart, would flatten them.
FAR = 1.4
# Straight pieces of the line of a law of the distance to the best possible score.
SEGMENTS = 40

Drawn = TypeVar("Drawn", Line, Point)


def learning_curves(
    cells: Sequence[Cell],
    folders: Mapping[str, Path],
    metric: str | None = None,
    x: str = "steps",
    log: bool | None = None,
) -> Figure:
    """Plot a metric over training: the median over seeds, and a band from minimum to maximum.

    Args:
        cells: as returned by `aggregate`.
        folders: run_id -> run folder.
        metric: name of the metric, taken from the first of validation, test and training that has
            it; `None` for the metric that ranks models.
        x: `steps`, or `epochs` for runs whose duration was set in epochs.
        log: use a logarithmic y axis; `None` to do so if the values span decades, and to use a
            logit axis for accuracies near 100 %.

    Raises:
        ConfigError: if no run has such a curve.
    """

    def draw(axes: Axes, lines: list[Line], styles: Styles) -> Iterable[str]:
        cell = lines[0].cell
        shown = metric or cell.column.metric or ""
        values = [value for line in lines for value in line.band.median]
        log_y = is_log(values, log, not is_accuracy(shown) and spans_decades(values))
        bounds = bounds_of(cell, shown)
        logit_y = log is None and is_accuracy(shown) and is_logit([*values, *bounds.values()])
        for i, line in enumerate(lines):
            style, together = styles[line.cell.label], line.band
            every = math.ceil(len(line.xs) / MARKED)
            # Offset the first marker of each line, so that markers of overlapping lines stay apart.
            first = min(i * every // len(lines), len(line.xs) - 1)
            marks = {"markersize": 4, "markevery": (first, every)}
            axes.plot(line.xs, together.median, **{**style.points, **style.line, **marks})
            if together.n > 1:
                shade: dict[str, Any] = {"color": style.colour, "alpha": 0.16, "linewidth": 0}
                axes.fill_between(line.xs, together.low, together.high, **shade)
                yield "line: median over seeds; band: from the lowest to the highest"
        for name, value in bounds.items():
            yield from draw_bound(axes, name, [(0, value)], shown, log_y)
        if logit_y:
            yield "accuracies near 100 % on a logit axis"
        axes.set_xlim(left=0)
        direction = "max" if is_accuracy(shown) else "min" if shown == "loss" else None
        if shown == cell.column.metric:
            direction = cell.column.direction
        scale: Scale = "logit" if logit_y else log_y
        label_axes(axes, x, shown, direction, lines[0].split, (False, scale))

    return _figure(curve_panels(cells, folders, metric, x), draw, {"markersize": 4})


def scaling(
    cells: Sequence[Cell], x: str = "length", log: bool | None = None, by: str | None = None
) -> Figure:
    """Plot the score against size, cost or a setting, with power-law fits on log-log axes.

    Where the best possible score is known, the law is of the distance to it.

    Args:
        cells: as returned by `aggregate`.
        x: `length`, `parameters`, `seconds`, `compute`, or a config key.
        log: use logarithmic axes; `None` to do so for axes without accuracies. An axis with a value
            that is not positive stays linear.
        by: a config key or `parameters`: a line for each of its values.

    Raises:
        ConfigError: if no run has a score and a number under `x`.
    """

    def draw(axes: Axes, points: list[Point], styles: Styles) -> Iterable[str]:
        column = points[0].cell.column
        metric = column.metric or ""
        places = sorted({point.x for point in points})
        log_x = is_log(places, log, True)
        log_y = is_log([point.score for point in points], log, not is_accuracy(metric))
        exponents = []
        for name in (name for name in styles if name in {point.cell.label for point in points}):
            members = [point for point in points if point.cell.label == name]
            best = best_along(members, column.direction)
            xs = [point.x for point in best]
            far = xs[-1] >= SPAN_TO_FIT * xs[0]
            floor = best[0].cell.optimum or 0.0
            seeds = [(point.x, score - floor) for point in best for _, score in point.cell.scores]
            is_positive = all(score > 0 for _, score in seeds)
            if log_x and log_y and len(best) >= FEWEST_TO_FIT and far and is_positive:
                law = power_law(seeds)
                if floor:
                    xs = [xs[0] * (xs[-1] / xs[0]) ** (i / SEGMENTS) for i in range(SEGMENTS + 1)]
                ys = [floor + law.at(x) for x in xs]
                # No line break inside.
                exponents.append(f"{name}\u00a0{law.exponent:.2f}\u00a0±\u00a0{law.half:.2f}")
                yield (
                    f"line: power law {'of the distance to the best possible ' * bool(floor)}by "
                    "least squares through all seeds"
                )
            else:
                ys = [point.score for point in best]
            axes.plot(xs, ys, **styles[name].line)
            if len(members) > len(best):
                yield "of several configurations of a model at one place, the line takes the best"
        if exponents:
            where = f"{axes.get_title('left')}: " if len({c.column for c in cells}) > 1 else ""
            laws = ", ".join(exponents)
            yield f"{where}exponent, with half of its 95% confidence interval: {laws}"
        yield from draw_points(axes, points, styles)
        for name in dict.fromkeys(name for p in points for name in bounds_of(p.cell)):
            known = {p.x: bounds[name] for p in points if name in (bounds := bounds_of(p.cell))}
            if log_y and _is_far(known.values(), [point.score for point in points]):
                yield f"{name}: {_span(known.values(), metric)}, beyond the axis"
            else:
                yield from draw_bound(axes, name, sorted(known.items()), metric, log_y)
        log_xy = log_x, log_y
        label_axes(axes, x, metric, column.direction, column.split, log_xy, places)

    return _figure(point_panels(cells, x, by), draw, {})


def pareto(
    cells: Sequence[Cell], x: str = "seconds", log: bool | None = None, by: str | None = None
) -> Figure:
    """Plot the score against cost, with the Pareto front of the configs without divergence.

    Args:
        cells: as returned by `aggregate`.
        x: `seconds`, `parameters`, `compute`, `bytes`, `latency`, or a config key whose number is a
            cost.
        log: use logarithmic axes; `None` to do so if the values span decades.
        by: a config key or `parameters`: a look for each of its values.

    Raises:
        ConfigError: if no run has a score and a number under `x`.
    """
    devices = {str(record.measured.get("device")) for cell in cells for record in cell.records}

    def draw(axes: Axes, points: list[Point], styles: Styles) -> Iterable[str]:
        column = points[0].cell.column
        metric, bounds = column.metric or "", bounds_of(points[0].cell)
        costs, scores = [point.x for point in points], [point.score for point in points]
        seen = [*scores, *(value for value in bounds.values() if value > 0)]
        log_x = is_log(costs, log, spans_decades(costs))
        log_y = is_log(scores, log, not is_accuracy(metric) and spans_decades(seen))
        found = front(
            [(point.x, point.score) for point in points if not point.cell.diverged],
            column.direction,
        )
        if found:
            # Between two of its points, the front has the score of the cheaper one.
            axes.step(*zip(*found, strict=True), where="post", color=GREY, linewidth=1, zorder=1.5)
            yield "line: Pareto front of configs without divergence"
        yield from draw_points(axes, points, styles)
        for name, value in bounds.items():
            yield from draw_bound(axes, name, [(costs[0], value)], metric, log_y)
        axes.margins(0.1)
        label_axes(axes, x, metric, column.direction, column.split, (log_x, log_y))
        if x in ("seconds", "latency") and len(devices) > 1:
            yield "times are of different devices"

    return _figure(point_panels(cells, x, by), draw, {"linestyle": ""})


@matplotlib.style.context(STYLE)
def write(figure: Figure, path: Path) -> None:
    """Write a figure in the format of its suffix: .png, .svg or .pdf.

    Raises:
        ConfigError: if the suffix is another one.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in METADATA:
        raise ConfigError(f"a plot is a .png, .svg or .pdf file, not '{path.name}'")
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # missing glyphs
        figure.savefig(file, format=kind, dpi=160, metadata=METADATA[kind])
    atomic.write(path, file.getvalue())


@matplotlib.style.context(STYLE)
def _figure(
    panels: Mapping[Column, list[Drawn]],
    draw: Callable[[Axes, list[Drawn], Styles], Iterable[str]],
    handle: Mapping[str, Any],
) -> Figure:
    """Build a figure of panels, with a legend outside and the remarks of `draw` below.

    Args:
        panels: the lines or points of each panel.
        draw: draws a panel and yields remarks for the reader.
        handle: style of legend entries that overrides that of lines and points.

    Raises:
        ConfigError: if there are too many panels or legend entries.
    """
    columns = sorted(panels, key=lambda column: column.order)
    styles = styles_of([item.cell for members in panels.values() for item in members])
    if len(columns) > MOST_PANELS or len(styles) > MOST_NAMES:
        raise ConfigError(
            f"{len(columns)} panels with {len(styles)} lines are too many: --where narrows them"
        )
    across = len(columns)
    if across > 3:  # a figure with a legend and two panels across fits a page
        across = 2 if across <= 6 else math.ceil(math.sqrt(across))
    down = math.ceil(len(columns) / across)
    names = [fitted(name, 30) for name in styles]
    lines = 3 + sum(1 + name.count("\n") for name in names)
    room = 0.9 + 0.065 * max(len(part) for name in names for part in name.split("\n"))
    figure = Figure(
        figsize=(across * PANEL[0] + max(room, 1.7), max(down * PANEL[1], 0.19 * lines) + 0.3),
        layout="constrained",
    )
    differ = [name for name in CHOICES if len({getattr(column, name) for column in columns}) > 1]
    remarks: dict[str, None] = {}
    for i, column in enumerate(columns):
        axes = figure.add_subplot(down, across, i + 1)
        chosen: list[str | None] = [getattr(column, name) for name in differ]
        title = ", ".join(filter(None, [task_text(column), *chosen]))
        axes.set_title(fitted(plain(title), TITLE))
        remarks |= dict.fromkeys(draw(axes, panels[column], styles))
    handles = [Line2D([], [], **{**s.points, **s.line, **handle}) for s in styles.values()]
    of_panels = (line for axes in figure.axes for line in axes.get_lines())
    bounds: dict[str, list[Line2D]] = {}
    for line in of_panels:
        if (text := str(line.get_label()))[:1] != "_":
            bounds.setdefault(text, []).append(line)
    baselines = [name for name in bounds if name != BEST_POSSIBLE]
    for name, dashes in zip(baselines, cycle(DASHES_OF_BASELINES)):
        for line in bounds[name]:
            line.set_linestyle(dashes)
    handles += [lines[0] for lines in bounds.values()]
    names += bounds
    figure.legend(handles, names, loc="outside right upper")
    width = int(figure.get_figwidth() * 18)
    note = textwrap.fill("; ".join(remarks), width)
    figure.supxlabel(note, fontsize=7, color=GREY, x=0.01, ha="left")
    return figure


def _is_far(bounds: Collection[float], scores: Sequence[float]) -> bool:
    """Return True if bounds are further from the scores, in logarithms, than these are apart."""
    low, high = min(scores), max(scores)
    span = max(high / low, FAR)
    return all(bound > high * span or 0 < bound < low / span for bound in bounds)


def _span(values: Collection[float], metric: str) -> str:
    low, high = number(min(values), metric), number(max(values), metric)
    return low if low == high else f"{low} to {high}"
