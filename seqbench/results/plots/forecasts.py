"""Draw forecasts of the test beside the truth and a naive forecast, in the unit of the target."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from seqbench.errors import ConfigError
from seqbench.results.cells import Cell
from seqbench.results.plots.axes import COLOURS, GREY, STYLE, fitted
from seqbench.results.plots.data import LARGEST
from seqbench.runs.forecasts import ForecastWindow, Lines, Numbers, read_forecasts
from seqbench.wording import number, plain, task_with_size

PANEL = 3.4, 2.1
MOST_ROWS = 12
# The same colors for every model.
FORECAST, NAIVE = COLOURS[4], COLOURS[2]


@matplotlib.style.context(STYLE)
def forecasts(
    cells: Sequence[Cell],
    folders: Mapping[str, Path],
    chosen: Mapping[str, list[ForecastWindow]] | None = None,
) -> Figure:
    """Plot the windows that runs keep: a row per run and target, a column per window.

    Args:
        cells: as returned by `aggregate`.
        folders: run_id -> run folder.
        chosen: run_id -> windows to draw instead; `None`: those that the runs keep.

    Raises:
        ConfigError: if no run keeps forecasts, or there are too many rows.
    """
    rows: list[tuple[str, str, list[ForecastWindow]]] = []
    for cell in cells:
        for record in cell.records:
            kept = folders[record.run_id] / "forecasts.json"
            windows = read_forecasts(kept) if chosen is None else chosen.get(record.run_id, [])
            seed = f", seed {record.seed}" if len(cell.records) > 1 else ""
            title = f"{cell.label}{seed} on {task_with_size(record.task, record.length)}"
            for target in windows[0].lines if windows else ():
                rows.append((title, target, windows))
    if not rows:
        raise ConfigError(
            "no run here keeps forecasts of its test: runs of forecasting tasks do, older ones "
            "after 'seqbench eval RUN'"
        )
    if len(rows) > MOST_ROWS:
        raise ConfigError(
            f"{len(rows)} runs and targets are too many, at most {MOST_ROWS}: name the runs"
        )
    across = max(len(windows) for _, _, windows in rows)
    size = (max(across, 2) * PANEL[0], len(rows) * PANEL[1] + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    for i, (title, target, windows) in enumerate(rows):
        for j, window in enumerate(windows):
            axes = figure.add_subplot(len(rows), across, i * across + j + 1)
            own = window.lines[target]
            draw(axes, window, own)
            series = f"{plain(window.series)}, " if window.series else ""
            head = f"{series}{window.name}, MSE {number(window.error)}"
            above = f"{plain(title)}\n" if j == 0 and (i == 0 or rows[i - 1][0] != title) else ""
            axes.set_title(above + fitted(head, 44))
            if j == 0:
                axes.set_ylabel(fitted(plain(target), 24))
    lines = {str(line.get_label()): line for axes in figure.axes for line in axes.get_lines()}
    named = {name: line for name, line in lines.items() if name[:1] != "_"}
    figure.legend(
        named.values(), named.keys(), loc="outside lower left", ncols=len(named), fontsize=8
    )
    return figure


def draw(axes: Axes, window: ForecastWindow, own: Lines) -> None:
    """Draw the end of the look-back, and the horizon."""
    times: Sequence[Any] = moments(window.times)
    start = max(0, len(own.past) - 1)
    # The truth goes on from the last past value; forecasts begin one step later.
    truth = drawable(own.past + own.truth)
    ahead = times[len(own.past) :]
    mark = "o" if len(ahead) == 1 else ""
    axes.plot(times, truth, color="0.2", linewidth=1.1, label="truth", marker=mark, markersize=3)
    shown = {
        window.naive: (own.naive, NAIVE, (0, (2, 1.2))),
        "forecast": (own.forecast, FORECAST, "-"),
    }
    for name, (values, shade, dash) in shown.items():
        axes.plot(
            ahead,
            drawable(values),
            color=shade,
            linestyle=dash,
            linewidth=1.5,
            label=name,
            marker=mark,
            markersize=3,
        )
    axes.axvline(times[start], color=GREY, linewidth=0.6)
    if isinstance(times[0], datetime):
        locator = AutoDateLocator(minticks=3, maxticks=6)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    else:
        axes.set_xlabel("row")


def drawable(values: Numbers) -> list[float]:
    """Return values with NaN, a gap in a line, for those missing or too large for an axis."""
    return [v if v is not None and abs(v) < LARGEST else math.nan for v in values]


def moments(times: Sequence[str | int]) -> list[Any]:
    """Return times as datetimes, and row numbers as they are.

    Raises:
        ConfigError: if a time is malformed.
    """
    try:
        return [
            datetime.fromisoformat(t).replace(tzinfo=None) if isinstance(t, str) else t
            for t in times
        ]
    except ValueError as error:
        raise ConfigError(f"a forecast has a malformed time: {plain(str(error))}") from error
