"""Draw learning curves as text: Braille dots for one curve, a letter each for several."""

import math
from collections.abc import Collection, Mapping

from rich.console import Console
from rich.text import Text

from seqbench.results.curves import Curve, spans_decades
from seqbench.wording import is_accuracy, metric_name, number, plain

# Lines of a plot, and its largest width in columns.
HEIGHT, WIDEST = 10, 100
COLOURS = ["cyan", "yellow", "green", "magenta", "blue", "red"]
ASCII = str.maketrans("┌┐└┘│─", "++++|-")
# Limits for numbers from untrusted files. Above 2**53 consecutive steps are equal as floats.
LARGEST_STEP, LARGEST_VALUE = 2**53, 1e100


def print_curves(
    console: Console,
    split: str,
    metric: str,
    curves: Mapping[str, Curve],
    baselines: Collection[tuple[float, str]] = (),
) -> None:
    """Draw the curves of one metric over steps, no wider than the terminal; nothing if empty.

    Args:
        console: console to print to; the plot is ASCII if the console is ASCII only.
        split: split that the metric was measured on.
        metric: name of the metric; accuracies are fractions, and are drawn in per cent.
        curves: marker -> curve. The letter marks the curve if there are several.
        baselines: value and name of scores to compare with, drawn as horizontal lines.
    """
    from uniplot import plot_to_string

    drawn = {marker: drawable(curve) for marker, curve in curves.items()}
    drawn = {marker: curve for marker, curve in drawn.items() if curve.steps}
    if not drawn:
        return
    values = [value for curve in drawn.values() for value in curve.values]
    log = not is_accuracy(metric) and spans_decades(values)
    shown = {
        value: name
        for value, name in baselines
        if abs(value) < LARGEST_VALUE and not (log and value <= 0)
    }
    lines = list(shown)
    low, high = limits([*values, *lines], log)
    labels = {
        math.ceil((high - at) / (high - low) * HEIGHT) or 1: name
        for at, name in ticks(low, high, metric, log)
    }
    margin = max(map(len, labels.values()), default=0)
    width = max(10, min(console.width, WIDEST) - margin - 3)
    steps = max(curve.steps[-1] for curve in drawn.values())
    single = len(curves) == 1 and not console.options.ascii_only
    picture = plot_to_string(
        xs=[curve.steps for curve in drawn.values()],
        ys=[curve.values for curve in drawn.values()],
        lines=True,
        width=width,
        height=HEIGHT,
        character_set="braille" if single else "ascii",
        force_ascii_characters=["*"] if len(curves) == 1 else list(drawn),
        color=[COLOURS[list(curves).index(marker) % len(COLOURS)] for marker in drawn],
        x_min=0,
        x_max=max(1, steps),
        y_as_log=log,
        y_min=10**low if log else low,
        y_max=10**high if log else high,
        y_labels=False,
        x_gridlines=[],
        y_gridlines=lines,
    )
    if console.options.ascii_only:
        picture = picture.translate(ASCII)
    title = f"{plain(split)} {metric_name(metric)} over {steps:,} steps" + ", log axis" * log
    if lines:
        scores = (f"{number(value, metric)} {plain(name)}" for value, name in shown.items())
        title += f"; line: {', '.join(scores)}"
    console.print(Text(f"\n{title}", style="bold"))
    # uniplot's own labels show neither per cent nor numbers in the format of seqbench.
    for row, line in enumerate(picture.split("\n")):
        label = Text(labels.get(row, "").rjust(margin + 1))
        console.print(label + Text.from_ansi(line), no_wrap=True, overflow="crop")


def drawable(curve: Curve) -> Curve:
    """Drop points outside the limits, and thin the curve to 4 points per column."""
    points = [
        (step, value)
        for step, value in zip(curve.steps, curve.values, strict=True)
        if 0 <= step < LARGEST_STEP and abs(value) < LARGEST_VALUE
    ]
    steps, values = zip(*points, strict=True) if points else ((), ())
    return Curve(steps, values).thinned(4 * WIDEST)


def limits(values: Collection[float], log: bool) -> tuple[float, float]:
    """Return the ends of an axis with a 5 % margin around values; as exponents of 10 if `log`."""
    ends = min(values), max(values)
    low, high = map(math.log10, ends) if log else ends
    room = 0.05 * (high - low)
    # Draw values that hardly differ as a flat line, instead of magnifying rounding noise.
    if room <= 1e-6 * abs(high):
        room = 0.1 * abs(high) or 1.0
    return low - room, high + room


def ticks(low: float, high: float, metric: str, log: bool) -> list[tuple[float, str]]:
    """Return position and label of each tick, at round numbers, or powers of ten if `log`."""
    size = 10.0 ** math.floor(math.log10(high - low))
    step = next(size * part for part in (0.2, 0.5, 1, 2) if high - low <= 6 * size * part)
    step = max(1.0, step) if log else step
    found = []
    for count in range(math.ceil(low / step), math.floor(high / step) + 1):
        at = count * step
        value = 10**at if log else at
        digits = 1
        if not log and at:
            # The same number of decimals for all labels.
            digits += max(0, math.floor(math.log10(abs(at))) - math.floor(math.log10(step)))
        found.append((at, number(value, metric, digits) + " %" * is_accuracy(metric)))
    return found
