import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqbench.datasets import catalog
from seqbench.datasets.text import load_text, load_text_file, split
from seqbench.errors import ConfigError, DataError

# The benchmarks


def test_ptb_is_read_as_it_is(real_data):
    text = load_text("ptb", str(real_data))
    assert [len(part) for part in (text.train, text.valid, text.test)] == [
        5_101_618,
        399_782,
        449_945,
    ]
    assert text.train.count("\n") == 42_068
    assert len(set(text.train)) == len(set(text.train + text.valid + text.test)) == 50
    assert text.train.startswith(" aer banknote berlitz calloway")
    assert list(text.checksums) == ["ptb/ptb.train.txt", "ptb/ptb.valid.txt", "ptb/ptb.test.txt"]


def test_shakespeare_is_cut_90_5_5_and_trains_on_what_nanogpt_trains_on(real_data):
    text = load_text("shakespeare", str(real_data))
    whole = (real_data / "tinyshakespeare" / "input.txt").read_text()
    assert text.train == whole[: int(len(whole) * 0.9)]
    assert text.valid + text.test == whole[int(len(whole) * 0.9) :]
    assert abs(len(text.valid) - len(text.test)) <= 1


@pytest.mark.parametrize("name", ["text8", "enwik8"])
def test_text8_and_enwik8_are_cut_90_5_5_with_one_character_for_each_byte(
    name, tmp_path, monkeypatch
):
    kinds = b" abcdefghijklmnopqrstuvwxyz" if name == "text8" else bytes(range(256))
    content = bytes(random.Random(0).choices(kinds, k=2000))
    file = catalog.File(name, len(content), hashlib.sha256(content).hexdigest(), ())
    monkeypatch.setitem(catalog.DATASETS, name, catalog.Dataset(name, "small", "none", (file,)))
    (tmp_path / name).mkdir()
    (tmp_path / name / name).write_bytes(content)
    text = load_text(name, str(tmp_path))
    assert [len(part) for part in (text.train, text.valid, text.test)] == [1800, 100, 100]
    assert (text.train + text.valid + text.test).encode("latin-1") == content
    assert text.checksums == {f"{name}/{name}": file.sha256}


def test_a_dataset_that_is_no_text_is_refused():
    with pytest.raises(ConfigError, match="mnist is not a text"):
        load_text("mnist")
    with pytest.raises(ConfigError, match="did you mean 'ptb'"):
        load_text("pbt")


# Cutting


def test_the_usual_cuts_of_100_million_fall_on_the_million():
    class Long(str):
        """As long as text8, for the price of its slices' bounds."""

        def __len__(self):
            return 100_000_000

        def __getitem__(self, at):
            return at

    train, valid, test = split(Long("x"))
    assert train == slice(None, 90_000_000)
    assert valid == slice(90_000_000, 95_000_000)
    assert test == slice(95_000_000, None)


@given(
    length=st.integers(100, 300),
    cuts=st.lists(st.integers(1, 99), min_size=2, max_size=2, unique=True).map(sorted),
)
def test_the_parts_are_the_text_in_order_cut_at_the_decimal_fractions(length, cuts):
    text = "".join(chr(0x4E00 + i) for i in range(length))
    splits = (cuts[0] / 100, (cuts[1] - cuts[0]) / 100, (100 - cuts[1]) / 100)
    train, valid, test = split(text, splits)
    assert train + valid + test == text
    assert len(train) == length * cuts[0] // 100
    assert len(train) + len(valid) == length * cuts[1] // 100


@pytest.mark.parametrize(
    "splits", [(0.9, 0.1), (0.9, 0.1, 0.0), (0.9, 0.2, -0.1), (0.9, 0.05, 0.04), (0.5, 0.5, 0.5)]
)
def test_fractions_that_are_no_splits_are_refused(splits):
    with pytest.raises(ConfigError, match="three positive fractions with sum 1"):
        split("x" * 100, splits)
    with pytest.raises(ConfigError, match="part of 100 characters empty"):
        split("x" * 100, (0.998, 0.001, 0.001))


# A user's own file


def test_a_file_of_ones_own(tmp_path):
    content = "Grüße, 世界!\n" * 20
    (tmp_path / "own.txt").write_text(content, encoding="utf-8")
    text = load_text_file(str(tmp_path / "own.txt"), (0.5, 0.25, 0.25))
    assert text.train + text.valid + text.test == content
    assert len(text.train) == len(content) // 2
    assert text.checksums == {"own.txt": hashlib.sha256(content.encode()).hexdigest()}


def test_the_mark_goes_and_line_ends_become_one_kind_but_nothing_is_normalised(tmp_path):
    # An a with a combining ring, and the letter a-ring: equal under NFC, kept apart here.
    body = "a\u030a\u00e5\r\n one \r two \n" * 10
    (tmp_path / "own.txt").write_bytes(b"\xef\xbb\xbf" + body.encode())
    text = load_text_file(str(tmp_path / "own.txt"))
    assert text.train + text.valid + text.test == "a\u030a\u00e5\n one \n two \n" * 10


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is empty"),
        (b"x" * 99, "99 characters"),
        ("é".encode() * 99, "99 characters"),
        (b"\xef\xbb\xbf", "0 characters"),
        (b"x" * 150 + b"\xff" + b"x" * 50, "byte 0xff at offset 150"),
        (b"\xef\xbb\xbf" + b"x" * 150 + b"\xe9t\xe9", "byte 0xe9 at offset 153"),
        (b"x" * 150 + "é".encode()[:1], "byte 0xc3 at offset 150"),
        (b"\xff\xfe" + ("text " * 50).encode("utf-16-le"), "byte 0xff at offset 0"),
        (b"\xef\xbb\xbf" + b"x" * 150 + b"\0", "byte 0x00 at offset 153"),
    ],
)
def test_what_is_no_text_is_refused_in_one_line(content, text, tmp_path):
    path = tmp_path / "own.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=text) as caught:
        load_text_file(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "text"),
    [("none", "is not there"), ("", "is not a file"), ("/dev/zero", "is not a file")],
)
def test_what_is_no_file_is_refused(path, text, tmp_path):
    with pytest.raises(DataError, match=text):
        load_text_file(str(tmp_path / path))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_text_or_a_data_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_bytes(content)
    try:
        text = load_text_file(str(path))
    except DataError:
        return
    assert "\r" not in text.train + text.valid + text.test
