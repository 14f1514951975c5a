"""Draw what the panels of all figures share: styles, points, bounds and axes."""

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from matplotlib import ticker
from matplotlib.axes import Axes

from seqbench.results.cells import Cell
from seqbench.results.looks import looks_of
from seqbench.results.plots.data import LARGEST, Point
from seqbench.results.tables.layout import ARROWS
from seqbench.runs.record import BEST_POSSIBLE, WITHOUT_MEMORY
from seqbench.wording import is_accuracy, metric_name, number, plain

# The palette of Okabe and Ito, distinguishable with colour blindness, in the order and shades of
# the report. DASHES are the report's dash patterns in points.
COLOURS = ("#009e73", "#b5558d", "#d55e00", "#c98a00", "#0072b2", "#2f9bd6", "#4d4d4d")
DASHES: tuple[Any, ...] = (
    (0, (7, 2.5)),
    (0, (6, 2, 1, 2)),
    (0, (3.5, 2)),
    (0, (1, 1.3)),
    "-",
    (0, (9, 2, 2, 2)),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "h")
GREY = "0.35"
# Overrides the user's matplotlib settings; a `$` in a name does not start math mode.
STYLE: list[Any] = [
    "default",
    {
        "text.parse_math": False,
        "svg.hashsalt": "seqbench",
        "pdf.fonttype": 42,  # TrueType: publishers reject matplotlib's default, Type 3
        "font.size": 9,
        "axes.titlesize": 9.5,
        "axes.titlelocation": "left",
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "0.9",
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "legend.frameon": False,
        "legend.handlelength": 3.6,
    },
]
AXES = {
    "length": "sequence length T (time steps)",
    "task.length": "sequence length T (time steps)",
    "parameters": "trainable parameters",
    "seconds": "training time (s)",
    "compute": "training compute (FLOP, an estimate)",
    "bytes": "file of weights (bytes)",
    "latency": "latency of one example (s)",
    "steps": "training step",
    "epochs": "epoch",
}
# The first is also that of a baseline that is alone in a figure.
DASHES_OF_BASELINES: tuple[Any, ...] = ((0, (2, 2)), (0, (5, 1.5)), (0, (4, 1.5, 1, 1.5, 1, 1.5)))
DASHES_OF_OPTIMUM = (0, (8, 2, 1, 2))
# Curves of accuracies have a logit axis if the best is above this.
NEAR_PERFECT = 0.95
# Ticks of a logit axis, and those between them if it spans less than `FINE` in logits.
LOGIT_TICKS = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)
FINE_LOGIT_TICKS = (0.02, 0.05, 0.2, 0.3, 0.7, 0.8, 0.95, 0.98, 0.995)
FINE = 8.0


@dataclass(frozen=True)
class Style:
    """The colour, dash pattern and marker of a config, the same in all panels."""

    colour: str
    dash: Any
    marker: str

    @property
    def line(self) -> dict[str, Any]:
        """Return the style of a line without markers."""
        return {"color": self.colour, "linestyle": self.dash, "linewidth": 1.5}

    @property
    def points(self) -> dict[str, Any]:
        """Return the style of markers without a line; merge with `line` to get both."""
        return {"color": self.colour, "marker": self.marker, "markersize": 5, "linestyle": ""}


Styles = Mapping[str, Style]
# Of an axis: linear, logarithmic, or logit.
Scale = bool | Literal["logit"]


def styles_of(cells: Iterable[Cell]) -> dict[str, Style]:
    """Return label -> style for all configs.

    Models have the colours of the report; if there is one model only, each config has its own.
    """
    looks = looks_of(cells)
    alone = len({look.model for look in looks}) == 1 < len(looks)
    used: set[tuple[str, str]] = set()
    styles = {}
    for i, look in enumerate(looks):
        colour = COLOURS[i % len(COLOURS) if alone else look.colour]
        markers = [MARKERS[(i + k) % len(MARKERS)] for k in range(len(MARKERS))]
        # No two configs look alike, unless there are more than markers in a colour.
        marker = next((m for m in markers if (colour, m) not in used), markers[0])
        used.add((colour, marker))
        styles[look.label] = Style(colour, DASHES[look.dash], marker)
    return styles


def draw_points(axes: Axes, points: Iterable[Point], styles: Styles) -> Iterable[str]:
    """Draw markers with 95% intervals, and yield remarks that explain them to the reader."""
    for point in points:
        style = styles[point.cell.label]
        axes.errorbar(
            point.x,
            point.score,
            yerr=point.bar and [[point.score - point.bar[0]], [point.bar[1] - point.score]],
            **style.points,
            elinewidth=1,
            capsize=2,
            markerfacecolor="white" if point.cell.diverged else style.colour,
        )
        if point.bar is not None:
            yield "bar: 95% interval over seeds"
        if point.cell.diverged:
            yield "hollow: a seed diverged"


def bounds_of(cell: Cell, metric: str | None = None) -> dict[str, float]:
    """Return the known bounds of the score, or of another metric, by name."""
    name = plain(cell.records[0].baseline_name)
    known = {name: cell.baseline, BEST_POSSIBLE: cell.optimum}
    if metric not in (None, cell.column.metric):
        known = {WITHOUT_MEMORY: cell.records[0].baseline_of(str(metric))}
    return {
        name: value for name, value in known.items() if value is not None and abs(value) < LARGEST
    }


def draw_bound(
    axes: Axes, name: str, points: Sequence[tuple[float, float]], metric: str, log: bool
) -> Iterable[str]:
    """Draw the bound called `name`; yield a remark instead if a log axis cannot show it."""
    xs, ys = zip(*points, strict=True)
    dashes = DASHES_OF_OPTIMUM if name == BEST_POSSIBLE else DASHES_OF_BASELINES[0]
    style: dict[str, Any] = {"color": GREY, "linewidth": 1, "zorder": 1.5, "linestyle": dashes}
    if log and not is_log(ys, None, True):
        yield f"{name}: {number(min(ys), metric)}, which a logarithmic axis cannot show"
    elif len(set(ys)) == 1:
        axes.axhline(ys[0], label=name, **style)
    else:
        axes.plot(xs, ys, label=name, **style)


def label_axes(
    axes: Axes,
    x: str,
    metric: str,
    direction: str | None,
    split: str | None,
    log: tuple[Scale, Scale],
    places: Sequence[float] = (),
) -> None:
    """Set labels, scales and ticks.

    Args:
        axes: the axes, with everything drawn.
        x: quantity of the x axis, a key of `AXES` or of the config.
        metric: quantity of the y axis.
        direction: `min` or `max`, whichever is better; `None` to name none.
        split: split that the metric was measured on.
        log: scale of the x axis, and of the y axis.
        places: x values to label, if they are far enough apart.
    """
    better = {"min": "lower", "max": "higher"}.get(direction or "")
    arrow = f"\n({better} is better {ARROWS[direction or '']})" if better else ""
    axes.set_xlabel(AXES.get(x, fitted(plain(x), 48)))
    axes.set_ylabel(fitted(f"{plain(split or '')} {metric_name(metric)}", 40) + arrow)
    set_ticks(axes, "x", log[0], places=places)
    set_ticks(axes, "y", log[1], metric)


def fitted(text: str, width: int) -> str:
    """Return the text wrapped to `width` characters and cut after three lines."""
    return "\n".join(textwrap.wrap(text, width, max_lines=3, placeholder=" ...")) or "(no name)"


def is_log(values: Iterable[float], wanted: bool | None, default: bool) -> bool:
    """Return True if the axis is logarithmic: as wanted or by default, if all values allow it."""
    return min(values) > 1 / LARGEST and (default if wanted is None else wanted)


def is_logit(accuracies: Sequence[float]) -> bool:
    """Return True if accuracies need a logit axis: some are near 100 %, and none is 0 or 100 %."""
    return min(accuracies) > 0 and NEAR_PERFECT < max(accuracies) < 1


def set_ticks(
    axes: Axes,
    which: Literal["x", "y"],
    log: Scale,
    metric: str = "",
    places: Sequence[float] = (),
) -> None:
    """Set scale and ticks; ticks are at `places` if these are far enough apart to be labelled."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    if log:
        axes.set(**{f"{which}scale": log if log == "logit" else "log"})
    low, high = axis.get_view_interval()
    minor: ticker.Locator = ticker.NullLocator()
    major: ticker.Locator = ticker.MaxNLocator(5 if which == "x" else 7, steps=[1, 2, 2.5, 5, 10])
    if log == "logit":
        span = math.log(high / (1 - high)) - math.log(low / (1 - low))
        more = FINE_LOGIT_TICKS if span < FINE else ()
        major = ticker.FixedLocator([*LOGIT_TICKS, *more])
    elif log and high / low >= 4:
        subs = (1.0, 2.0, 5.0) if high / low < 100 else (1.0,)
        major = ticker.LogLocator(subs=subs)
        minor = ticker.LogLocator(subs="auto")
    if places and _stand_apart(places, bool(log)):
        major, minor = ticker.FixedLocator(places), ticker.NullLocator()
    axis.set_major_locator(major)
    axis.set_minor_locator(minor)
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: tick(value, metric)))
    axis.set_minor_formatter(ticker.NullFormatter())


def _stand_apart(places: Sequence[float], log: bool) -> bool:
    at = [math.log(place) if log else place for place in places]
    gaps = [b - a for a, b in pairwise(at)]
    return all(gap > (at[-1] - at[0]) / 8 for gap in gaps)


def tick(value: float, metric: str) -> str:
    """Return a short tick label; accuracies in per cent."""
    if metric and is_accuracy(metric):
        value *= 100
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if unit * 1000 > abs(value) >= max(unit, 1e4):
            return f"{value / unit:.4g}{letter}"
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4g}"
    mantissa, _, exponent = f"{value:.3e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"
