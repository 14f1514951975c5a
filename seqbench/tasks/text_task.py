"""Language modelling of a text in three splits, of characters (`char_lm`) or words (`word_lm`)."""

from seqbench.datasets.text import Text, load_text_file
from seqbench.errors import ConfigError
from seqbench.tasks.segments import SegmentTask
from seqbench.tasks.task import Split
from seqbench.tasks.tokenization import Tokenization
from seqbench.user_files import check_digest


class TextTask(SegmentTask):
    """Base class of language modelling of a text.

    Args:
        text: the text's splits.
        vocabulary: maps between the text and ids.
        length: tokens in a window.
        context: leading tokens of a window that repeat the previous window.
        train_size: number of leading characters used of the training text; `None`: all.
        eval_size: number of leading characters used of the validation and of the test text; `None`:
            all.
        shuffle: read the training windows in random order, and do not carry state in training.

    Raises:
        ConfigError: if a size is under 2, or as for `SegmentTask`.
    """

    def __init__(
        self,
        text: Text,
        vocabulary: Tokenization,
        length: int,
        context: int,
        train_size: int | None,
        eval_size: int | None,
        shuffle: bool = False,
        *,
        batch_size: int,
        seed: int,
        data_dir: str | None,
    ) -> None:
        parts = parts_of(text, train_size, eval_size)
        super().__init__(
            {split: vocabulary.encode(part) for split, part in parts.items()},
            vocabulary,
            length,
            context,
            shuffle,
            batch_size=batch_size,
            seed=seed,
            data_dir=data_dir,
        )
        self.checksums = text.checksums
        self.notes["unknown_valid"] = vocabulary.unknown_count(parts["valid"])
        self.notes["unknown_test"] = vocabulary.unknown_count(parts["test"])


def parts_of(text: Text, train_size: int | None, eval_size: int | None) -> dict[Split, str]:
    """Return the leading characters of each split that are used; sizes as for `TextTask`.

    Raises:
        ConfigError: if a size is under 2.
    """
    for name, size in (("train_size", train_size), ("eval_size", eval_size)):
        if size is not None and size < 2:
            raise ConfigError(f"task.{name} must be at least 2 characters, not {size}")
    return {
        "train": text.train[:train_size],
        "valid": text.valid[:eval_size],
        "test": text.test[:eval_size],
    }


def text_of(path: str | None, sha256: str | None) -> Text:
    """Load the user's own text.

    Args:
        path: the file, UTF-8.
        sha256: expected SHA-256 of the file; `None`: any.

    Raises:
        ConfigError: if no path is given, or the SHA-256 differs.
        DataError: if the file cannot be read or is not UTF-8 text.
    """
    if path is None:
        raise ConfigError("no text is given: set task.path=my.txt")
    if sha256 is not None:
        check_digest(path, sha256)
    return load_text_file(path)
