"""Predictions in the formats that a user may ask for."""

import csv
import json

import duckdb
import numpy as np
import pytest

from seqbench.errors import ConfigError
from seqbench.results.prediction_file import FORMATS, prediction_table

CHARACTERS = [
    "a",
    " ",
    "\n",
    "\r",
    '"',
    ",",
    "'",
    "\\",
    "é",
    "\u2028",
    "\N{REPLACEMENT CHARACTER}",
    "\x01",
]


def parts():
    """Two batches of columns, the characters once as targets and once as predictions."""
    for start in (0, len(CHARACTERS)):
        target = np.array(CHARACTERS, dtype=object)
        size = len(target)
        yield {
            "example": np.arange(start, start + size),
            "target": target,
            "prediction": target[::-1],
            "probability": np.linspace(0, 1, size, dtype=np.float32),
        }


def rows_of(path):
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        return header, [(int(a), b, c, np.float32(d)) for a, b, c, d in rows]
    if path.suffix == ".jsonl":
        found = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
        return list(found[0]), [
            (*list(row.values())[:3], np.float32(row["probability"])) for row in found
        ]
    table = duckdb.sql(f"FROM read_parquet('{str(path).replace(chr(39), chr(39) * 2)}')")
    return table.columns, [(*row[:3], np.float32(row[3])) for row in table.fetchall()]


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_has_the_rows_in_their_order(tmp_path, suffix):
    path = tmp_path / f"it's a file{suffix}"
    path.write_text("of earlier")
    with prediction_table(path) as table:
        for part in parts():
            table.append(part)
    header, rows = rows_of(path)
    assert header == ["example", "target", "prediction", "probability"]
    assert rows == [
        row
        for part in parts()
        for row in zip(*(x.tolist() if x.dtype != "f4" else x for x in part.values()), strict=True)
    ]
    assert list(tmp_path.iterdir()) == [path], "nothing else is left"


def test_a_value_that_is_not_a_number_is_missing(tmp_path):
    path = tmp_path / "p.jsonl"
    with prediction_table(path) as table:
        table.append({"prediction": np.array([np.nan, 1.5], np.float32)})
    assert path.read_text().splitlines() == ['{"prediction":null}', '{"prediction":1.5}']


def test_an_error_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("of earlier")

    def interrupted():
        with prediction_table(path) as table:
            table.append(next(parts()))
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert path.read_text() == "of earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_another_suffix_is_one_line(tmp_path):
    with (
        pytest.raises(ConfigError, match=r"ends with \.csv, \.parquet, \.jsonl, got .*p\.txt"),
        prediction_table(tmp_path / "p.txt"),
    ):
        pass
