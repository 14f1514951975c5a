"""Read a table of time series from a CSV or Parquet file, with DuckDB."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from seqbench.datasets.csv_file import (
    COMPRESSED,
    DAY_OR_MONTH_FIRST,
    SETTINGS,
    check_date_order,
    check_lines,
    escaped,
    in_one_line,
    offset_of,
    read_csv,
    separator_of,
    texts_of_column,
)
from seqbench.datasets.text_file import decoded, read_bytes
from seqbench.datasets.time_steps import DAY, is_business_days, moment
from seqbench.errors import ConfigError, DataError
from seqbench.user_files import SEQUENCE_FILES, existing
from seqbench.wording import plain, suggestion

PARQUET = (".parquet", ".pq")
NUMERIC = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|FLOAT|DOUBLE|BOOLEAN|DECIMAL.*")
TEMPORAL = re.compile(r"DATE|TIMESTAMP.*")


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of numbers in the order of time, of one series or of several.

    Attributes:
        path: the file.
        columns: names of the columns of numbers.
        values: `(rows, columns)` float64; NaN where a value is missing.
        numbers: `(rows,)` each row's number in the file, from 1, without the header.
        time: `(rows,)` datetime64[us], increasing within each series; `None`: no time column.
        time_column: its name.
        series: name -> the rows of a series; one without a name unless the table has a group.
        ignored: names of the columns that are neither numbers nor the time nor the group.
        offset: of the times from UTC, 0 if the file has several; `None`: they have none.
    """

    path: str
    columns: tuple[str, ...]
    values: NDArray[np.float64]
    numbers: NDArray[np.int64]
    time: NDArray[np.datetime64] | None
    time_column: str | None
    series: dict[str, slice]
    ignored: tuple[str, ...]
    offset: np.timedelta64 | None = None

    @cached_property
    def step(self) -> np.timedelta64 | None:
        """Return the most frequent difference of successive times; `None` for a single time."""
        if self.time is None:
            return None
        differences = [np.diff(self.time[rows]) for rows in self.series.values()]
        kinds, counts = np.unique(np.concatenate(differences), return_counts=True)
        return kinds[counts.argmax()] if len(kinds) else None

    @property
    def period(self) -> int | None:
        """Time steps of the natural season: a day, a week of days, a year of weeks or months.

        A week of a series without weekends has five days.

        `None` without a time column, or if the time step fits none of them.
        """
        if self.step is None or self.time is None:
            return None
        if is_business_days(self.time, self.step):
            return 5
        if self.step < DAY:
            return None if DAY % self.step else int(DAY / self.step)
        for least, most, steps in ((1, 1, 7), (7, 7, 52), (28, 31, 12), (89, 92, 4)):
            if least * DAY <= self.step <= most * DAY:
                return steps
        return None

    @property
    def gaps(self) -> int:
        """Number of places where the next time is not one step later."""
        if self.time is None or self.step is None:
            return 0
        return sum(int((np.diff(self.time[r]) != self.step).sum()) for r in self.series.values())

    def place(self, row: int) -> str:
        """Return the file, the number and the time of a row, to begin an error with."""
        time = "" if self.time is None else f" ({moment(self.time[row])})"
        return f"{self.path}, row {self.numbers[row]}{time}"

    def check_columns(self, names: Iterable[str], key: str) -> None:
        """Raise `ConfigError` if one of the names, given as `key`, is no column of numbers."""
        for name in names:
            if name in self.ignored:
                raise ConfigError(f"{key}: column '{plain(name)}' of {self.path} holds no numbers")
            if name not in self.columns:
                hint = suggestion(name, self.columns)
                raise ConfigError(f"{key}: {self.path} has no column '{plain(name)}'{hint}")

    def check_complete(
        self,
        columns: Sequence[int],
        *,
        missing: bool,
        rows: NDArray[np.bool_] | None = None,
        hint: str = "task.missing=mask leaves missing values out of inputs and score",
    ) -> None:
        """Raise `DataError` at the first infinite value, and unless allowed, missing value.

        Args:
            columns: places of the columns to check.
            missing: missing values are allowed.
            rows: `(rows,)`, the rows to check; `None`: all.
            hint: ends the error on a missing value.
        """
        for column in columns:
            values = self.values[:, column]
            wrong = np.isinf(values) if missing else ~np.isfinite(values)
            wrong = wrong if rows is None else wrong & rows
            if wrong.any():
                row = int(wrong.argmax())
                place, name = self.place(row), plain(self.columns[column])
                if np.isinf(values[row]):
                    raise DataError(f"{place}: {name} is {values[row]}, expected a finite number")
                raise DataError(f"{place}: {name} is missing; {hint}")


def read_table(
    path: str,
    time: str | None = None,
    group: str | None = None,
    read: Collection[str] | None = None,
) -> Table:
    """Read a CSV or Parquet file.

    Args:
        path: the file; Parquet if its name ends with `.parquet` or `.pq`, else CSV.
        time: name of the time column; `None`: the first column of dates or timestamps, if any.
        group: name of the column that names the series of a row; `None`: one series.
        read: names of the columns that are read, which must not hold broken numbers; `None`: all.

    Raises:
        ConfigError: if a named column does not exist.
        DataError: if the file cannot be read, has no rows or no column of numbers, or if times are
            missing, duplicate or not in order.
    """
    kinds, found = read_columns(path, keys=[] if group is None else [group])
    for key, name in (("task.time", time), ("task.group", group)):
        if name is not None and name not in kinds:
            hint = suggestion(name, kinds)
            raise ConfigError(f"{key}: {path} has no column '{plain(name)}'{hint}")
    others = {name: kind for name, kind in kinds.items() if name not in (time, group)}
    columns = number_columns(others, found, path, read)
    if time is None:
        time = first_time(others, found, path)
    if not columns:
        raise DataError(f"{path} has no column of numbers beside the time: {', '.join(kinds)}")
    values = np.empty((len(found[columns[0]]), len(columns)))
    for i, name in enumerate(columns):
        values[:, i] = np.ma.filled(np.ma.asarray(found.pop(name)).astype(np.float64), np.nan)
    times = offset = None
    if time is not None:
        times, offset = as_time(found[time], kinds[time], path, time)
    numbers, series = np.arange(1, len(values) + 1), {"": slice(0, len(values))}
    if group is not None:
        order, series = series_of(found[group], path, group)
        values, numbers = values[order], numbers[order]
        times = None if times is None else times[order]
    ignored = tuple(name for name in others if name not in (time, *columns))
    table = Table(path, tuple(columns), values, numbers, times, time, series, ignored, offset)
    check_order(table)
    return table


def read_columns(path: str, keys: Sequence[str]) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the type in DuckDB and the values of each column of a file, by name.

    Args:
        path: the file.
        keys: columns of a CSV file that are read as texts.

    Raises:
        DataError: if the file cannot be read or has no rows.
    """
    import duckdb

    file = existing(path)
    if not file.stat().st_size:
        raise DataError(f"{path} is empty")
    check_kind(file, path)
    try:
        with duckdb.connect(config=SETTINGS) as connection:
            name = escaped(file)
            if file.suffix.lower() in PARQUET:
                rows = connection.read_parquet(name, hive_partitioning=False)
                columns = rows.fetchnumpy()
            else:
                given = connection, name, path, keys, separator_of(file, path)
                rows = read_csv(*given)
                if len(rows.columns) == 1:  # what DuckDB makes of lines of different lengths
                    check_lines(file, path)
                try:
                    columns = rows.fetchnumpy()
                except duckdb.ConversionException:  # the first rows gave the types
                    rows = read_csv(*given, all_rows=True)
                    columns = rows.fetchnumpy()
            kinds = dict(zip(rows.columns, map(str, rows.types), strict=True))
    except duckdb.Error as error:
        if "utf-8" in str(error) and file.suffix.lower() not in COMPRESSED:
            decoded(read_bytes(path), path)
        if "sniffing" in str(error):
            check_lines(file, path)
        raise DataError(f"{path}{in_one_line(str(error))}") from error
    if not len(next(iter(columns.values()), ())):
        raise DataError(f"{path} has no rows")
    return kinds, columns


def check_kind(file: Path, path: str) -> None:
    """Raise `DataError` if a file is neither Parquet nor text, by its name or its content."""
    suffix = file.suffix.lower()
    expected = "expected .csv, .tsv, .txt or .parquet"
    if suffix in SEQUENCE_FILES:
        raise DataError(f"{path} ends with {suffix}, {expected}; task=classify_file reads it")
    if suffix in (*PARQUET, *COMPRESSED):
        return
    try:
        with file.open("rb") as content:
            is_text = b"\0" not in content.read(4096)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    if not is_text:
        ends = f"ends with {suffix} and is no text" if suffix else "is no text"
        raise DataError(f"{path} {ends}, {expected}; task=classify_file also reads .npz and .ts")


def number_columns(
    kinds: Mapping[str, str],
    found: Mapping[str, Any],
    path: str,
    read: Collection[str] | None,
) -> list[str]:
    """Return the names of the columns of numbers.

    Args:
        kinds: the types of the columns in question, by name.
        found: the values of each column.
        path: the file, for errors.
        read: names of the columns that are read; `None`: all but texts and codes such as `01`.

    Raises:
        DataError: if a column that is read holds broken numbers.
    """
    for name, kind in kinds.items():
        if kind == "VARCHAR" and (name in read if read is not None else not is_code(found[name])):
            check_text(found[name], name, path, "number")
    return [name for name, kind in kinds.items() if NUMERIC.fullmatch(kind)]


def first_time(kinds: Mapping[str, str], found: Mapping[str, Any], path: str) -> str | None:
    """Return the name of the first column of dates or timestamps, or `None`.

    Raises:
        DataError: if a column before it holds broken times.
    """
    for name, kind in kinds.items():
        if TEMPORAL.fullmatch(kind):
            return name
        if kind == "VARCHAR":
            check_text(found[name], name, path, "time")
    return None


def check_text(column: Any, name: str, path: str, kind: Literal["number", "time"]) -> None:
    """Raise `DataError` if most texts of a column are numbers or times, and the others are not."""
    is_valid, example = (is_number, "0.5") if kind == "number" else (is_time, "2020-12-31 23:00")
    texts = [str(text) for text in np.ma.asarray(column).compressed()]
    similar = [text for text in texts if is_valid(text.replace(",", "."))]
    if kind == "time":
        similar += filter(DAY_OR_MONTH_FIRST.match, texts)
    if 2 * len(similar) <= len(texts):
        return
    rows = enumerate(np.ma.asarray(column).filled(""), 1)
    wrong = ((row, str(x)) for row, x in rows if str(x) and not is_valid(str(x)))
    if (found := next(wrong, None)) is None:
        raise DataError(f"{path}: {name} is stored as text, expected values like {example}")
    row, text = found
    expected = f"a {kind} such as {example}"
    raise DataError(f"{path}, row {row}: {name} is '{plain(text)}', expected {expected}")


def is_code(column: Any) -> bool:
    """Return True if a column of texts holds digits, some after a zero, as `01` and `01234`."""
    texts = [str(text) for text in np.ma.asarray(column).compressed()]
    return all(map(str.isdecimal, texts)) and any(re.fullmatch(r"0\d+", text) for text in texts)


def is_number(text: str) -> bool:
    """Return True if a text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def is_time(text: str) -> bool:
    """Return True if a text is a date, with or without a time of the day."""
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def as_time(
    column: Any, kind: str, path: str, name: str
) -> tuple[NDArray[np.datetime64], np.timedelta64 | None]:
    """Return a time column as datetime64[us], and its offset from UTC; `None` without a time zone.

    Times such as `2020-12-31 23:00+09:00` are local if all have the same offset, and else in UTC.
    Parquet files hold UTC.

    Raises:
        DataError: if it is not a column of times, a time is missing, or the day and the month of
            all dates may be exchanged.
    """
    if not TEMPORAL.fullmatch(kind):
        raise DataError(f"{path}: {name} holds no dates or timestamps such as 2020-12-31 23:00")
    times: NDArray[np.datetime64] = np.ma.asarray(column).astype("datetime64[us]")
    missing = np.ma.getmaskarray(times) | np.isnat(np.ma.getdata(times))
    if missing.any():
        raise DataError(f"{path}, row {int(missing.argmax()) + 1}: {name} is missing")
    read = np.ma.getdata(times)
    offset = np.timedelta64(0, "m") if "ZONE" in kind else None
    if Path(path).suffix.lower() in PARQUET:
        return read, offset
    if offset is None:
        if any(map(DAY_OR_MONTH_FIRST.match, texts_of_column(path, name, rows=1))):
            check_date_order(texts_of_column(path, name), path, name)
        return read, None
    local = offset_of(texts_of_column(path, name))
    return read + local, local


def series_of(column: Any, path: str, name: str) -> tuple[NDArray[np.intp], dict[str, slice]]:
    """Return an order that puts the rows of a series together, and each series' rows in it.

    Raises:
        DataError: if the series of a row is missing.
    """
    codes: dict[str, int] = {}
    code = np.array([codes.setdefault(x, len(codes)) for x in texts_of(column, path, name)])
    ends = np.bincount(code).cumsum().tolist()
    places = map(slice, [0, *ends[:-1]], ends)
    return code.argsort(kind="stable"), dict(zip(codes, places, strict=True))


def texts_of(column: Any, path: str, name: str) -> list[str]:
    """Return the values of a column as texts, numbers without blanks around them.

    Raises:
        DataError: if one is missing.
    """
    values = np.ma.asarray(column)
    missing = np.ma.getmaskarray(values)
    if missing.any():
        raise DataError(f"{path}, row {int(missing.argmax()) + 1}: {name} is missing")
    texts = map(str, values.data.tolist())
    return [text.strip() if is_number(text) else text for text in texts]


def check_order(table: Table) -> None:
    """Raise `DataError` if the times of a series are not strictly increasing."""
    for name, rows in table.series.items() if table.time is not None else ():
        assert table.time is not None
        steps = np.diff(table.time[rows])
        wrong = steps <= np.timedelta64(0)
        if wrong.any():
            at = int(wrong.argmax())
            of = f" of series '{plain(name)}'" if name else ""
            fault = "earlier than the time before: sort the file by time"
            if not steps[at]:
                fault = "the same as the time before: remove the row"
            if not name:
                fault += ", or name the column of each row's series with task.group"
            raise DataError(f"{table.place(rows.start + at + 1)}: the time{of} is {fault}")
