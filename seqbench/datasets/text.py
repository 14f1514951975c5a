"""Texts for character-level language models: the benchmarks' and a user's own.

Nothing is normalised: no case, no white space, no Unicode form. What is in the file is what the
model reads, with the line ends and the byte order mark of a user's own file as the only exception.
"""

import codecs
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from seqbench.datasets.catalog import find
from seqbench.datasets.download import ensure
from seqbench.errors import ConfigError, DataError

TEXTS = ("ptb", "text8", "enwik8", "shakespeare")
SPLITS = (0.9, 0.05, 0.05)
SHORTEST = 100


@dataclass(frozen=True)
class Text:
    """A text in three parts that do not overlap.

    Attributes:
        train: what models learn from.
        valid: what selects among them.
        test: what they are scored on, once.
        checksums: SHA-256 of each file.
    """

    train: str
    valid: str
    test: str
    checksums: dict[str, str]


def load_text(name: str, data_dir: str | None = None) -> Text:
    """Read a benchmark text, which is downloaded on first use.

    - `ptb`: three files as they are, the newline a character like any other.
    - `text8`, `enwik8`: the first 90 million characters, then 5 and 5 million. A character of
      enwik8 is one byte (decoded as Latin-1), as all published bits per character of it have it.
    - `shakespeare`: the first 90 %, then 5 % and 5 %. It has no official split; nanoGPT trains on
      the same 90 % and validates on all of the last 10 %.

    Args:
        name: one of `TEXTS`.
        data_dir: the cache folder, see `download.data_folder`.

    Raises:
        ConfigError: there is no such text.
        DataError: it cannot be had.
        RunError: it cannot be written to the cache.
    """
    dataset = find(name)
    if name not in TEXTS:
        raise ConfigError(f"{name} is not a text (there are {', '.join(TEXTS)})")
    paths = ensure(name, data_dir)
    # The texts but enwik8 are ASCII, of which Latin-1 is a superset.
    texts = {file: path.read_bytes().decode("latin-1") for file, path in paths.items()}
    if name == "ptb":
        train, valid, test = (texts[f"ptb.{part}.txt"] for part in ("train", "valid", "test"))
    else:
        (text,) = texts.values()
        train, valid, test = split(text)
    return Text(train, valid, test, dataset.checksums)


def load_text_file(path: str, splits: Sequence[float] = SPLITS) -> Text:
    r"""Read a user's own text: UTF-8, with or without a byte order mark, any line ends.

    The mark is dropped and line ends become `\n`; the checksum is of the file as it is.

    Args:
        path: the file.
        splits: fractions for train, valid and test, in the order of the text.

    Raises:
        ConfigError: the fractions are not three positive ones with sum 1, or leave a part empty.
        DataError: the file cannot be read, is not UTF-8 text, or is under 100 characters.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise DataError(f"{path} is {'not a file' if file.exists() else 'not there'}")
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    if not data:
        raise DataError(f"{path} is empty")
    body = data.removeprefix(codecs.BOM_UTF8)
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        at = error.start + len(data) - len(body)
        raise DataError(
            f"{path} is not UTF-8 text: byte 0x{data[at]:02x} at offset {at} ({error.reason})"
        ) from error
    # UTF-8 allows it, text does not have it, and most binary files do.
    if 0 in data:
        raise DataError(f"{path} is not text: byte 0x00 at offset {data.index(0)}")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if len(text) < SHORTEST:
        raise DataError(f"{path} has {len(text)} characters, under the {SHORTEST} that are needed")
    parts = split(text, splits)
    return Text(*parts, checksums={file.name: hashlib.sha256(data).hexdigest()})


def split(text: str, splits: Sequence[float] = SPLITS) -> tuple[str, str, str]:
    """Cut a text into train, valid and test, in this order; the fractions are taken as decimals.

    Raises:
        ConfigError: the fractions are not three positive ones with sum 1, or leave a part empty.
    """
    if len(splits) != 3 or min(splits) <= 0 or abs(sum(splits) - 1) > 1e-9:
        raise ConfigError(f"splits must be three positive fractions with sum 1, not {splits}")
    # In binary, 0.7 + 0.2 is a little less than 0.9, and a cut would fall one character early.
    first, second = (Fraction(str(part)) for part in splits[:2])
    ends = int(len(text) * first), int(len(text) * (first + second))
    parts = text[: ends[0]], text[ends[0] : ends[1]], text[ends[1] :]
    if not all(parts):
        raise ConfigError(f"splits {splits} leave a part of {len(text)} characters empty")
    return parts
