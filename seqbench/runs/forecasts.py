"""Keep a few forecasts of the test, to be drawn. Nothing here needs torch.

`forecasts.json` in a run folder holds them, at most some hundred kilobytes.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from seqbench.runs import atomic, foreign

# Most bytes, windows, targets and time steps that are read from a file.
LARGEST, MOST_WINDOWS, MOST_TARGETS, MOST_STEPS = 2**23, 8, 8, 20_000
LARGEST_ROW = 2**53

Numbers = list[float | None]


@dataclass(frozen=True)
class Lines:
    """The values of a target in its unit; `None` where missing.

    Attributes:
        past: of the end of the look-back.
        truth: of the horizon, as `forecast` and `naive`.
        forecast: of the model.
        naive: of a naive forecast.
    """

    past: Numbers
    truth: Numbers
    forecast: Numbers
    naive: Numbers


@dataclass(frozen=True)
class ForecastWindow:
    """A window of the test.

    Attributes:
        name: why it was chosen, such as `worst`.
        series: name of its series; empty: the only one.
        error: mean squared error of the scaled values.
        times: of each time step of past and horizon, in ISO 8601, or row numbers.
        naive: name of the naive forecast.
        lines: target -> its values.
    """

    name: str
    series: str
    error: float
    times: list[str] | list[int]
    naive: str
    lines: dict[str, Lines]


def write_forecasts(path: Path, windows: list[ForecastWindow]) -> None:
    """Write windows atomically, one line each.

    Raises:
        OSError: if the file cannot be written.
    """
    rows = ",\n".join(json.dumps(asdict(window), separators=(",", ":")) for window in windows)
    atomic.write(path, f"[{rows}]\n".encode())


def read_forecasts(path: Path) -> list[ForecastWindow]:
    """Return the windows in a file that may come from an untrusted source.

    Empty if there is no such file, or it holds something else.
    """
    try:
        if path.is_symlink():  # to a file that a report must not show
            return []
        items = json.loads(foreign.read(path, LARGEST))[:MOST_WINDOWS]
        windows = [_window(item) for item in items]
        same = all(window.lines.keys() == windows[0].lines.keys() for window in windows)
        return windows if same else []
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return []
    except (OverflowError, RecursionError):  # a number too large, lists too deep
        return []


def _window(item: dict[str, Any]) -> ForecastWindow:
    lines = {
        str(name): Lines(**{key: _numbers(values) for key, values in own.items()})
        for name, own in list(item["lines"].items())[:MOST_TARGETS]
    }
    times = item["times"]
    are_rows = all(type(t) is int and abs(t) < LARGEST_ROW for t in times)
    if not (are_rows or all(type(t) is str for t in times)):
        raise ValueError("expected texts or numbers of rows")
    for own in lines.values():
        ahead = len(own.truth)
        if not ahead or not len(own.forecast) == len(own.naive) == ahead == len(times) - len(
            own.past
        ):
            raise ValueError("lines of different lengths")
    text = {key: str(item[key]) for key in ("name", "series", "naive")}
    return ForecastWindow(error=float(item["error"]), times=times, lines=lines, **text)


def _numbers(values: list[Any]) -> Numbers:
    if len(values) > MOST_STEPS:
        raise ValueError("too many values")
    found = [None if value is None else float(value) for value in values]
    return [value if value is not None and math.isfinite(value) else None for value in found]
