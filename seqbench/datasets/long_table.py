"""Read labelled sequences from a long table: a row per time step, with columns id, time, label."""

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqbench.datasets.labelled import Labelled
from seqbench.datasets.table import (
    NUMERIC,
    TEMPORAL,
    as_time,
    number_columns,
    read_columns,
    series_of,
    texts_of,
)
from seqbench.errors import ConfigError, DataError
from seqbench.wording import plain, suggestion


def read_long_table(
    path: str,
    id: str,
    time: str | None,
    label: str,
    channels: Collection[str] | None = None,
    *,
    with_labels: bool = True,
) -> Labelled:
    """Read sequences from a CSV or Parquet file; see `read_labelled`.

    All other columns of numbers are channels. Sequences are in the order of their first rows.

    Raises:
        ConfigError: if a named column does not exist.
        DataError: if the file cannot be read, has no column of numbers beside the named ones, an
            id, time or label is missing, times do not increase within a sequence, or its labels
            differ.
    """
    kinds, found = read_columns(path, keys=[id, label])
    time = "time" if time is None and "time" in kinds else time
    for key, name in (("id", id), ("time", time)):
        if name is not None and name not in kinds:
            hint = suggestion(name, kinds)
            raise ConfigError(f"task.{key}: {path} has no column '{plain(name)}'{hint}")
    others = {name: kind for name, kind in kinds.items() if name not in (id, time, label)}
    names = tuple(number_columns(others, found, path, channels))
    if not names:
        raise DataError(f"{path} has no column of numbers beside id, time and label")
    order, series = series_of(found[id], path, id)
    columns = [np.ma.asarray(found[name]).astype(np.float64) for name in names]
    values = np.stack([np.ma.filled(column, np.nan) for column in columns], 1)[order]
    slices = list(series.values())
    if time is not None:
        check_times(time_column(found[time], kinds[time], path, time)[order], slices, order, path)
    labels = None
    if with_labels and label in kinds:
        texts = np.array(texts_of(found[label], path, label), object)[order]
        labels = tuple(label_of(texts[own], order[own], path, label) for own in slices)
    lengths = np.array([own.stop - own.start for own in slices], np.int64)
    return Labelled(path, names, values, lengths, labels, tuple(series))


def time_column(column: Any, kind: str, path: str, name: str) -> NDArray[np.generic]:
    """Return a column of numbers or times.

    Raises:
        DataError: if it is of another type, or a value is missing.
    """
    if TEMPORAL.fullmatch(kind) or not NUMERIC.fullmatch(kind):
        return as_time(column, kind, path, name)[0]
    numbers = np.ma.asarray(column).astype(np.float64)
    times: NDArray[np.float64] = np.ma.filled(numbers, np.nan)
    if (missing := np.isnan(times)).any():
        raise DataError(f"{path}, row {int(missing.argmax()) + 1}: {name} is missing")
    return times


def check_times(
    times: NDArray[np.generic], slices: list[slice], order: NDArray[np.intp], path: str
) -> None:
    """Raise `DataError` if the times of a sequence are not strictly increasing."""
    for own in slices:
        later = times[own][1:] > times[own][:-1]  # type: ignore[operator]
        if not later.all():
            row = int(order[own][int((~later).argmax()) + 1]) + 1
            raise DataError(
                f"{path}, row {row}: the time is not later than that of the sequence's row before: "
                "sort the file by time, and give each sequence an id of its own"
            )


def label_of(texts: NDArray[np.object_], rows: NDArray[np.intp], path: str, label: str) -> str:
    """Return the class of a sequence.

    Raises:
        DataError: if its rows have different ones.
    """
    first = str(texts[0])
    wrong = texts != first
    if wrong.any():
        at = int(wrong.argmax())
        raise DataError(
            f"{path}, row {int(rows[at]) + 1}: {label} is '{plain(str(texts[at]))}', and the first "
            f"row of the sequence has '{plain(first)}'"
        )
    return first
