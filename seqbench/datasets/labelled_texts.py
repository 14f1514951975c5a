"""Read labelled texts from a CSV or Parquet file, which has a row per text."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from seqbench.datasets.csv_file import COMPRESSED, SEPARATOR
from seqbench.datasets.table import PARQUET, check_kind, read_columns
from seqbench.datasets.text_file import decoded, read_bytes
from seqbench.errors import ConfigError, DataError
from seqbench.user_files import expand_home
from seqbench.wording import plain, suggestion


@dataclass(frozen=True, eq=False)
class LabelledTexts:
    """Texts, each with a class.

    Attributes:
        path: the file.
        texts: none is empty.
        labels: the class of each text; `None`: they were not read.
    """

    path: str
    texts: tuple[str, ...]
    labels: tuple[str, ...] | None


def read_labelled_texts(
    path: str, text: str, label: str, *, with_labels: bool = True
) -> LabelledTexts:
    """Read the texts of a file, and their classes.

    Args:
        path: Parquet if its name ends with `.parquet` or `.pq`, else CSV, in UTF-8.
        text: the column of texts.
        label: the column of classes.
        with_labels: read the classes.

    Raises:
        ConfigError: if there is no such column.
        DataError: if the file cannot be read, has no rows, or a text or class is missing.
    """
    columns = columns_of(path)
    for key, name in {"text": text, **({"label": label} if with_labels else {})}.items():
        if name not in columns:
            hint = suggestion(name, columns)
            raise ConfigError(f"task.{key}: {path} has no column '{plain(name)}'{hint}")
    if not columns[text]:
        raise DataError(f"{path} has no rows")
    labels = tuple(complete(columns[label], path, label)) if with_labels else None
    return LabelledTexts(path, tuple(complete(columns[text], path, text)), labels)


def complete(values: Iterable[str], path: str, name: str) -> list[str]:
    """Return the values of a column.

    Raises:
        DataError: if one is empty or white space.
    """
    values = list(values)
    for row, value in enumerate(values, 1):
        if not value.strip():
            raise DataError(f"{path}, row {row}: {name} is missing: fill it, or remove the row")
    return values


def columns_of(path: str) -> dict[str, list[str]]:
    """Return the columns of a file as texts, empty where a value is missing.

    Raises:
        DataError: if the file cannot be read.
    """
    file = expand_home(path)
    if file.suffix.lower() in PARQUET:
        found = {k: np.ma.asarray(column) for k, column in read_columns(path, keys=())[1].items()}
        return {k: list(map(str, np.ma.filled(v.astype(object), ""))) for k, v in found.items()}
    if file.suffix.lower() in COMPRESSED:
        raise DataError(f"{path} is compressed: unpack it first")
    content = read_bytes(path)
    check_kind(file, path)
    header, *rows = rows_of(decoded(content, path), path)
    return {name: [row[i] for row in rows] for i, name in enumerate(header)}


def rows_of(content: str, path: str) -> list[list[str]]:
    """Return the values of each row of a CSV file, the header first.

    The separator is a tab if the header has one, else what is most frequent in the header. A value
    may be quoted. Tab-separated files in which quotes are part of the texts are read as well.

    Raises:
        DataError: if the number of values of a row differs from that of the header, or a quote is
            not closed.
    """
    found = Counter(SEPARATOR.findall(content.partition("\n")[0]))
    separator = "\t" if "\t" in found or not found else found.most_common(1)[0][0]
    try:
        return quoted_rows(content, separator, path)
    except DataError:
        if separator != "\t":
            raise
        lines = enumerate(content.split("\n"), 1)
        return alike([(n, line.split("\t")) for n, line in lines if line], path)


def quoted_rows(content: str, separator: str, path: str) -> list[list[str]]:
    """Return the values of each row of a file in which values may be quoted; see `rows_of`."""
    lines = csv.reader(io.StringIO(content, newline=""), delimiter=separator, strict=True)
    rows = []
    usual = csv.field_size_limit(len(content))
    try:
        for row in lines:
            if row:
                rows.append((lines.line_num, row))
    except csv.Error as error:
        raise DataError(
            f"{path}, line {lines.line_num}: {error}; quotes inside a quoted text are doubled"
        ) from error
    finally:
        csv.field_size_limit(usual)
    return alike(rows, path)


def alike(rows: Sequence[tuple[int, list[str]]], path: str) -> list[list[str]]:
    """Return rows without their line numbers.

    Raises:
        DataError: if `rows` is empty, or the number of values differs from that of the first row.
    """
    if not rows:
        raise DataError(f"{path} has no rows")
    expected = len(rows[0][1])
    for line, row in rows:
        if len(row) != expected:
            raise DataError(
                f"{path}, line {line}: expected {expected} values, got {len(row)}; quote a text "
                "that has the separator in it"
            )
    return [row for _, row in rows]
