"""Cut series into windows: a look-back, which the model reads, and a horizon, which it forecasts.

A window has an origin, the last row of its look-back. Rows are split in the order of time:

    rows     ............ train ............|.. valid ..|.... test ....
    window            look-back  ^ horizon
                              origin

A window belongs to the split in which its whole horizon lies. The look-back of a training window is
training rows. That of the others may reach back into the split before, so their windows are the
same for every look-back.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from seqbench.datasets.table import Table
from seqbench.errors import ConfigError, DataError
from seqbench.tasks.task import Split
from seqbench.wording import plain

SPLITS: tuple[Split, ...] = ("train", "valid", "test")
Rows = dict[Split, slice]


def split_rows(table: Table, series: slice, splits: Sequence[float | str]) -> Rows:
    """Return the rows of each split of a series.

    Args:
        table: the table.
        series: the rows of the series.
        splits: three fractions of the rows with a sum of at most 1, three numbers of rows, or two
            times: those at which validation and test begin.

    Raises:
        ConfigError: if they are none of these.
    """
    count = series.stop - series.start
    if len(splits) == 2 and all(isinstance(time, str) for time in splits):
        begins = [series.start, *row_of_times(table, series, [str(time) for time in splits])]
        ends = [*begins[1:], series.stop]
    else:
        numbers = [size for size in splits if not isinstance(size, str)]
        wrong = len(numbers) != 3 or len(splits) != 3 or min(numbers) <= 0
        if not wrong and sum(numbers) <= 1 + 1e-9:
            train, test = int(count * numbers[0]), int(count * numbers[2])
            sizes = [train, int(count * sum(numbers) + 1e-6) - train - test, test]
        else:
            sizes = [int(size) for size in numbers]
            wrong |= sizes != numbers or sum(sizes) > count
        if wrong:
            raise ConfigError(
                "task.splits must be three fractions with a sum of at most 1, such as "
                f"[0.7,0.1,0.2], three numbers of rows, at most {count} in all, or the two dates "
                f"at which validation and test begin; not {list(splits)}"
            )
        ends = (series.start + np.cumsum(sizes)).tolist()
        begins = [series.start, *ends[:-1]]
    return {s: slice(b, e) for s, b, e in zip(SPLITS, begins, ends, strict=True)}


def row_of_times(table: Table, series: slice, times: Sequence[str]) -> list[int]:
    """Return the first row of a series that is not before each of some times.

    Raises:
        ConfigError: if there is no time column, or a time is malformed or not after the one before.
    """
    if table.time is None:
        raise ConfigError(f"task.splits: {table.path} has no time column, expected [0.7,0.1,0.2]")
    try:
        moments = np.array(times, dtype="datetime64[us]")
    except ValueError as error:
        raise ConfigError(f"task.splits: expected dates such as 2020-12-31: {error}") from error
    if np.isnat(moments).any():
        raise ConfigError(f"task.splits: expected dates such as 2020-12-31, got {list(times)}")
    if (np.diff(moments) <= np.timedelta64(0)).any():
        raise ConfigError(f"task.splits: expected validation before test, got {', '.join(times)}")
    found = np.searchsorted(table.time[series], moments)
    return [int(series.start + row) for row in found]


def windows(
    table: Table, name: str, rows: Rows, length: int, horizon: int
) -> dict[Split, NDArray[np.int64]]:
    """Return the origins of the windows of each split of a series.

    Args:
        table: the table.
        name: of the series.
        rows: of its splits.
        length: time steps of the look-back.
        horizon: time steps ahead.

    Raises:
        DataError: if a split has no window.
    """
    found: dict[Split, NDArray[np.int64]] = {}
    for split, of_split in rows.items():
        inside = length if split == "train" else 0
        first, end = of_split.start + inside - 1, of_split.stop - horizon
        before = first + 1 - table.series[name].start
        if end <= first or before < length:
            of = f" of series '{plain(name)}'" if name else ""
            size = of_split.stop - of_split.start
            if end <= first:
                reason = f"has {size:,} rows, expected at least {inside + horizon:,}"
            else:
                reason = f"begins after {before:,} rows, expected at least task.length={length}"
            raise DataError(
                f"{table.path}: the {split} split{of} {reason}: lower task.length or task.horizon, "
                "or change task.splits"
            )
        found[split] = np.arange(first, end)
    return found
