"""Load texts for language models: benchmark texts and a user's own file, in three splits.

Case, white space and Unicode form are left as they are.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from seqbench.datasets.catalog import find
from seqbench.datasets.download import ensure
from seqbench.datasets.nsmc import load_nsmc
from seqbench.datasets.text_file import decoded, read_bytes
from seqbench.errors import ConfigError, DataError
from seqbench.user_files import expand_home

TEXTS = ("ptb", "text8", "enwik8", "shakespeare", "nsmc")
SPLITS = (0.9, 0.05, 0.05)
SHORTEST = 100


@dataclass(frozen=True)
class Text:
    """A text in three disjoint splits.

    Attributes:
        train: the training text.
        valid: the validation text, for model selection.
        test: the test text, for the final score.
        checksums: SHA-256 of each file.
    """

    train: str
    valid: str
    test: str
    checksums: dict[str, str]


def load_text(name: str, data_dir: str | None = None) -> Text:
    """Read a benchmark text; download it on first use.

    - `ptb`: the three files unchanged; the newline is an ordinary character.
    - `text8`, `enwik8`: 90, 5 and 5 million characters. A character of enwik8 is one byte (decoded
      as Latin-1), as in all published bits per character.
    - `shakespeare`: 90 %, 5 % and 5 %. It has no official split; nanoGPT trains on the same 90 %
      and validates on all of the last 10 %.
    - `nsmc`: the reviews of each split of the task of that name, a line each, without their labels.

    Args:
        name: one of `TEXTS`.
        data_dir: the cache folder, see `download.data_folder`.

    Raises:
        ConfigError: if no text has that name.
        DataError: if it cannot be downloaded.
        RunError: if the cache is not writable.
    """
    dataset = find(name)
    if name not in TEXTS:
        raise ConfigError(f"{name} is not a text (there are {', '.join(TEXTS)})")
    if name == "nsmc":
        return reviews_as_text(data_dir, dataset.checksums)
    paths = ensure(name, data_dir)
    # All texts except enwik8 are ASCII, a subset of Latin-1.
    texts = {file: path.read_bytes().decode("latin-1") for file, path in paths.items()}
    if name == "ptb":
        train, valid, test = (texts[f"ptb.{part}.txt"] for part in ("train", "valid", "test"))
    else:
        (text,) = texts.values()
        train, valid, test = split(text)
    return Text(train, valid, test, dataset.checksums)


def reviews_as_text(data_dir: str | None, checksums: dict[str, str]) -> Text:
    """Return the reviews of NSMC, a line each; see `load_text`."""
    reviews, rows = load_nsmc(data_dir)
    parts = {k: "".join(f"{reviews.texts[i]}\n" for i in own) for k, own in rows.items()}
    return Text(parts["train"], parts["valid"], parts["test"], checksums)


def load_text_file(path: str, splits: Sequence[float] = SPLITS) -> Text:
    r"""Read a user's UTF-8 text file, drop its byte order mark and convert line ends to `\n`.

    The checksum is that of the unchanged file.

    Args:
        path: the file.
        splits: fractions for train, valid and test, in the order of the text.

    Raises:
        ConfigError: if the fractions are not three positive numbers with sum 1, or a split is
            empty.
        DataError: if the file cannot be read, is not UTF-8 text, or has under 100 characters.
    """
    data = read_bytes(path)
    text = decoded(data, path)
    if len(text) < SHORTEST:
        raise DataError(f"{path} has {len(text)} characters, under the {SHORTEST} that are needed")
    parts = split(text, splits)
    return Text(*parts, checksums={expand_home(path).name: hashlib.sha256(data).hexdigest()})


def split(text: str, splits: Sequence[float] = SPLITS) -> tuple[str, str, str]:
    """Split a text into train, valid and test, in this order, by exact decimal fractions.

    Raises:
        ConfigError: if the fractions are not three positive numbers with sum 1, or a split is
            empty.
    """
    if len(splits) != 3 or min(splits) <= 0 or abs(sum(splits) - 1) > 1e-9:
        raise ConfigError(f"splits must be three positive fractions with sum 1, not {splits}")
    # Fractions, since in floating point 0.7 + 0.2 < 0.9, which would move a cut by a character.
    first, second = (Fraction(str(part)) for part in splits[:2])
    ends = int(len(text) * first), int(len(text) * (first + second))
    parts = text[: ends[0]], text[ends[0] : ends[1]], text[ends[1] :]
    if not all(parts):
        raise ConfigError(f"splits {splits} leave a part of {len(text)} characters empty")
    return parts
