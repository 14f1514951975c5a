"""Texts are read as they are written, also with quotes, and a bad file costs one line."""

import csv

import duckdb
import pytest

from seqbench.datasets.labelled_texts import read_labelled_texts
from seqbench.errors import ConfigError, DataError


@pytest.fixture
def read(tmp_path):
    def of(content, name="my.csv", **options):
        path = tmp_path / name
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(data)
        found = read_labelled_texts(str(path), "text", "label", **options)
        return found.texts, found.labels

    return of


@pytest.mark.parametrize(
    ("name", "content", "texts"),
    [
        ("my.csv", 'label,text\r\n1,"a, ""b""\r\nc"\r\n0,NA\r\n', ('a, "b"\nc', "NA")),
        ("my.csv", "text;label;n\n3,5 € - ok;1;x\n\n?;0;y\n", ("3,5 € - ok", "?")),
        ("my.tsv", 'text\tlabel\n"a ""b"""\t1\nc\t0\n', ('a "b"', "c")),
        # Quotes that are not those of a CSV file are part of the texts, as in NSMC.
        ("my.txt", 'text\tlabel\n"강추" 합니다\t1\n""" ㅠㅠ\t0\n', ('"강추" 합니다', '""" ㅠㅠ')),
        ("my.csv", '\ufefftext,label\nsaid "hi",1\n-,0\n', ('said "hi"', "-")),
    ],
)
def test_texts_are_as_written_whatever_separates_and_quotes_them(name, content, texts, read):
    assert read(content, name) == (texts, ("1", "0"))


def test_a_text_may_be_as_long_as_the_file(read):
    limit, text = csv.field_size_limit(), "ab" * 100_000
    assert read(f'text,label\n"{text}",1\n') == ((text,), ("1",))
    with pytest.raises(DataError, match="unexpected end of data"):
        read(f'text,label\n"{text},1\n')
    assert csv.field_size_limit() == limit


def test_parquet_gives_the_same_as_csv(tmp_path):
    path = tmp_path / "my.parquet"
    values = "(values ('좋다, \"정말\"', true), ('007', false)) t(text, label)"
    duckdb.sql(f"copy (select * from {values}) to '{path}' (format parquet)")
    found = read_labelled_texts(str(path), "text", "label")
    assert (found.texts, found.labels) == (('좋다, "정말"', "007"), ("True", "False"))


def test_a_file_without_classes_may_have_commas_in_its_only_column(read):
    content = "text\n최고, 또 보고 싶다\nbad\n"
    assert read(content, with_labels=False) == (("최고, 또 보고 싶다", "bad"), None)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("", DataError, "my.csv is empty"),
        ("text,label\n", DataError, "my.csv has no rows"),
        ("text,label\na,1\n ,0\n", DataError, "my.csv, row 2: text is missing"),
        ("text,label\na,1\nb,\n", DataError, "my.csv, row 2: label is missing"),
        ("text,label\na,1\nb, c,0\n", DataError, "line 3: expected 2 values, got 3; quote a text"),
        ('text,label\n"a" b,1\n', DataError, "line 2: .*; quotes inside a quoted text are doubled"),
        ('text\tlabel\n"a\tb\t1\n', DataError, "line 2: expected 2 values, got 3"),
        (
            "text,label\n재미,1\n".encode("cp949"),
            DataError,
            "not UTF-8 text: byte 0xc0 at offset 11",
        ),
        (b"text,label\na\0,1\n", DataError, "my.csv ends with .csv and is no text"),
        (
            "txt,label\na,1\n",
            ConfigError,
            r"task.text: .* no column 'text' \(did you mean 'txt'\?\)",
        ),
        ("text,class\na,1\n", ConfigError, r"task\.label: .* no column 'label'"),
    ],
)
def test_a_bad_file_costs_one_line(content, error, message, read):
    with pytest.raises(error, match=message) as raised:
        read(content)
    assert len(str(raised.value).splitlines()) == 1


def test_files_that_are_compressed_or_not_there_are_refused(read, tmp_path):
    with pytest.raises(DataError, match=r"my\.csv\.gz is compressed: unpack it first"):
        read(b"\x1f\x8b", "my.csv.gz")
    with pytest.raises(DataError, match=r"none\.csv is not there"):
        read_labelled_texts(str(tmp_path / "none.csv"), "text", "label")
