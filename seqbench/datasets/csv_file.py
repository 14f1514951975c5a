"""Find out how a CSV file is written, and read it with DuckDB."""

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seqbench.errors import DataError
from seqbench.user_files import existing
from seqbench.wording import plain

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, DuckDBPyRelation

# Reading a file must not download or load an extension of DuckDB.
SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "threads": "2",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}
# DuckDB reads a CSV file that is compressed, if its name ends with one of these.
COMPRESSED = (".gz", ".zst")
# Texts of a CSV file that stand for a missing value.
MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?", "-")
SEPARATOR = re.compile(r"[,;\t|]")
# Times with the day first, and the option with which DuckDB reads them.
DAY_FIRST = {
    r"\d+\.\d+\.\d{4}": {"date_format": "%d.%m.%Y"},
    r"\d+\.\d+\.\d{4} \d+:\d+": {"timestamp_format": "%d.%m.%Y %H:%M"},
    r"\d+\.\d+\.\d{4} \d+:\d+:\d+": {"timestamp_format": "%d.%m.%Y %H:%M:%S"},
}
# Dates such as `01/02/2010`.
DAY_OR_MONTH_FIRST = re.compile(r"([0-2]?\d|3[01])[/-]([0-2]?\d|3[01])[/-](\d{4}|\d\d)(?=$|[ T,])")
# The offset from UTC at the end of a time.
OFFSET = re.compile(r"([+-])(\d\d):?(\d\d)?$|Z$")
# Numbers with commas between thousands, or with three decimals after one comma.
THOUSANDS = re.compile(r"-?[1-9]\d{0,2}(,\d{3})+")


def separator_of(file: Path, path: str) -> str | None:
    """Return the separator of a CSV file whose header has no comma; `None`: to be found out.

    In a file with decimal commas, DuckDB would take these for separators.

    Raises:
        DataError: if the header has one name, and the line below has commas.
    """
    if file.suffix.lower() in COMPRESSED:
        return None
    with file.open(encoding="utf-8", errors="replace", newline="") as text:
        found, below = set(SEPARATOR.findall(text.readline())), text.readline()
    if not found and "," in below:
        raise DataError(
            f"{path}, line 2: expected one value, as the first line has one name, got "
            f"'{plain(below.strip())}': write decimals with a point"
        )
    return found.pop() if len(found) == 1 and "," not in found else None


def read_csv(
    connection: "DuckDBPyConnection",
    name: str,
    path: str,
    keys: Sequence[str],
    separator: str | None,
    *,
    all_rows: bool = False,
) -> "DuckDBPyRelation":
    """Return the rows of a CSV file, which DuckDB reads later.

    DuckDB takes the types from some rows. Decimals after them would be rounded in a column of
    integers, so these are read as decimals. A column that seems to be text is typed by all rows,
    and with decimal commas if fewer columns are text then, unless commas separate values. Times
    such as `29.01.2023 13:00` are found in the first row.

    Args:
        connection: to DuckDB.
        name: the file, as DuckDB wants it.
        path: the file, for errors.
        keys: columns that are read as texts, so that `1.1` and `1.10` differ.
        separator: of values, see `separator_of`.
        all_rows: all rows give the types of the columns.

    Raises:
        DataError: if it cannot be told whether commas separate decimals or thousands.
    """
    options: dict[str, Any] = {"na_values": list(MISSING), "hive_partitioning": False}
    if separator is not None:
        options["sep"] = separator
    if all_rows:
        options["sample_size"] = -1
    rows = connection.read_csv(name, **options)
    if keys := [key for key in keys if key in rows.columns]:
        options["dtype"] = dict.fromkeys(keys, "VARCHAR")
        rows = connection.read_csv(name, **options)
    if texts_in(rows) > len(keys):
        options["sample_size"] = -1
        rows = connection.read_csv(name, **options)
        if separator is not None:
            comma = connection.read_csv(name, decimal=",", **options)
            if texts_in(comma) < texts_in(rows):
                check_thousands(rows, comma, path)
                rows, options = comma, options | {"decimal": ","}
        first = [str(value) for column in rows.limit(1).fetchnumpy().values() for value in column]
        for pattern, form in DAY_FIRST.items():
            if any(re.fullmatch(pattern, value) for value in first):
                options |= form
                rows = connection.read_csv(name, **options)
    types = dict(zip(rows.columns, map(str, rows.types), strict=True))
    integers = {k: "DOUBLE" for k, v in types.items() if "INT" in v}
    if not integers:
        return rows
    return connection.read_csv(name, **options | {"dtype": types | integers})


def texts_in(rows: "DuckDBPyRelation") -> int:
    """Return the number of columns of texts."""
    return list(map(str, rows.types)).count("VARCHAR")


def check_thousands(texts: "DuckDBPyRelation", numbers: "DuckDBPyRelation", path: str) -> None:
    """Raise `DataError` if all values of a column may have commas between thousands: `1,234`.

    Args:
        texts: the rows, with such a column as text.
        numbers: the rows, with the commas read as decimal ones.
        path: the file, for errors.
    """
    import duckdb

    for name, before, after in zip(texts.columns, texts.types, numbers.types, strict=True):
        if str(before) == "VARCHAR" != str(after):
            values = texts.select(duckdb.ColumnExpression(name)).fetchnumpy()[name]
            known = [str(value) for value in np.ma.asarray(values).compressed()]
            if known and all(map(THOUSANDS.fullmatch, known)):
                raise DataError(
                    f"{path}: {name} has values like '{plain(known[0])}', which may be thousands "
                    "or decimals: write decimals with a point"
                )


def check_date_order(texts: Iterable[str], path: str, name: str) -> None:
    """Raise `DataError` if the day and the month of all dates of a column may be exchanged."""
    example = None
    for text in texts:
        date = DAY_OR_MONTH_FIRST.match(text)
        if date is None or max(int(date[1]), int(date[2])) > 12:
            return
        if int(date[1]) != int(date[2]):
            example = example or text
    if example is not None:
        raise DataError(
            f"{path}: {name} has values like '{plain(example)}', which may have the day or the "
            "month first: write dates as 2020-12-31"
        )


def offset_of(texts: Iterable[str]) -> np.timedelta64:
    """Return the offset from UTC of all times of a column; 0 if they have several or none."""
    found = {match[0] if (match := OFFSET.search(text)) else "" for text in texts}
    match = OFFSET.search(found.pop())
    if found or match is None:
        return np.timedelta64(0, "m")
    sign, hours, minutes = match.groups(default="0")
    offset = np.timedelta64(60 * int(hours) + int(minutes), "m")
    return -offset if sign == "-" else offset


def texts_of_column(path: str, name: str, rows: int = 2**62) -> list[str]:
    """Return the first values of a column of a CSV file as they are written, but missing ones."""
    import duckdb

    file = existing(path)
    separator = separator_of(file, path)
    with duckdb.connect(config=SETTINGS) as connection:
        table = connection.read_csv(
            escaped(file),
            na_values=list(MISSING),
            hive_partitioning=False,
            sep=separator,
            dtype={name: "VARCHAR"},
        )
        column = table.select(duckdb.ColumnExpression(name)).limit(rows).fetchnumpy()[name]
    return [str(text) for text in np.ma.asarray(column).compressed()]


def escaped(file: Path) -> str:
    """Return the name of a file for DuckDB, which takes a name for a pattern of names."""
    return re.sub(r"[*?[]", r"[\g<0>]", str(file))


def check_lines(file: Path, path: str) -> None:
    """Raise `DataError` if a line of a CSV file does not have as many values as the first."""
    with file.open(encoding="utf-8", errors="replace", newline="") as text:
        header = text.readline()
        separator = SEPARATOR.search(header)
        if separator is None:
            return
        expected = len(next(csv.reader([header], delimiter=separator[0])))
        for values in (lines := csv.reader(text, delimiter=separator[0])):
            if len(values) not in (0, expected):
                at = f"{path}, line {lines.line_num + 1}"
                raise DataError(f"{at}: expected {expected} values, got {len(values)}")


def in_one_line(message: str) -> str:
    """Return an error of DuckDB as the end of a line that begins with the file's name."""
    line = re.search(r"Error on Line: (\d+)", message)
    value = re.search(r'converting column "(.*?)"\. Could not convert string "(.*?)"', message)
    at = f", line {line[1]}" if line else ""
    if value:
        return f"{at}: {value[1]} is '{plain(value[2])}', expected a number"
    lines = [text for text in message.splitlines() if text and "CSV Error on" not in text]
    return f"{at}: {plain(lines[0] if lines else message)}"
