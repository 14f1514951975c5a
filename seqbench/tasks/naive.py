"""Score naive forecasts, which a model has to beat: train mean, last value, seasonal naive.

The seasonal naive forecast of a time step is the last known value at the same place of the season.
Values are scaled with the mean of train, which is 0 then.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def naive_scores(
    series: Iterable[tuple[Values, NDArray[np.int64]]], horizon: int, period: int | None
) -> dict[str, float]:
    """Return the mean squared error of each naive forecast, by its name.

    Args:
        series: for each series its scaled values `(rows, targets)`, NaN where missing, and the
            origins of its windows.
        horizon: time steps ahead.
        period: time steps of a season. `None`, or longer than the past of a window: the seasonal
            naive forecast is left out.
    """
    totals: dict[str, list[tuple[float, float]]] = {}
    for values, origins in series:
        known = filled_forward(values)
        seen = ~np.isnan(values)
        goals = np.where(seen, values, 0.0)
        count = sums(seen.astype(float), origins, 1, horizon)
        squares = sums(goals**2, origins, 1, horizon)
        last = known[origins]
        of_last = squares - 2 * last * sums(goals, origins, 1, horizon) + last**2 * count
        found = {"train mean": squares, "last value": of_last}
        if period and origins.min() + 1 >= period:
            parts = []
            for ahead in range(0, horizon, period):
                lag = ahead + period
                errors = np.zeros_like(values)
                errors[lag:] = (goals[lag:] - known[:-lag]) ** 2 * seen[lag:]
                parts.append(sums(errors, origins, ahead + 1, min(lag, horizon)))
            found["seasonal naive"] = np.sum(parts, axis=0)
        for name, errors in found.items():
            totals.setdefault(name, []).append((float(errors.sum()), float(count.sum())))
    complete = len(totals["train mean"])
    return {
        name: sum(total for total, _ in parts) / sum(count for _, count in parts)
        for name, parts in totals.items()
        if len(parts) == complete
    }


def sums(values: Values, origins: NDArray[np.int64], first: int, last: int) -> Values:
    """Return the sums over the time steps `first` to `last` after each origin."""
    total = np.concatenate([np.zeros_like(values[:1]), values.cumsum(0)])
    result: Values = total[origins + last + 1] - total[origins + first]
    return result


def filled_forward(values: Values) -> Values:
    """Replace missing values by the last known one of their column, or else by 0."""
    rows = np.where(np.isnan(values), 0, np.arange(len(values))[:, None])
    return np.nan_to_num(np.take_along_axis(values, np.maximum.accumulate(rows), 0))


def seasonal_differences(values: Values, period: int | None) -> tuple[Values, Values]:
    """Return sum and number of the absolute differences to the season before, of each column.

    Args:
        values: training rows `(rows, targets)` of a series; NaN where missing.
        period: time steps of a season; `None`: 1.
    """
    lag = period or 1
    differences = np.abs(values[lag:] - values[:-lag])
    return np.nansum(differences, 0), (~np.isnan(differences)).sum(0).astype(float)
