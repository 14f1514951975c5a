"""Character-level language modelling of a benchmark text or of a user's own."""

import math
from typing import Literal

from torch import Tensor

from seqbench.datasets.text import Text, load_text
from seqbench.tasks.segments import scored_targets
from seqbench.tasks.task import Batch
from seqbench.tasks.text_task import TextTask, text_of
from seqbench.tasks.vocabulary import CODE_POINTS, UNKNOWN, Vocabulary

# The end of a line of the Penn Treebank in the published scores per character.
LINE_END = "<eos>"


class CharTask(TextTask):
    """Base class of language modelling in characters; arguments as for `TextTask`.

    A character outside the vocabulary also costs the choice of one of all code points, log2 of
    their number: all of them have the same id, which is easy to predict in a text full of them.
    """

    unknown_bits = math.log2(CODE_POINTS)

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, tuple[Tensor, int]]:
        found = super().metrics(outputs, batch)
        bits, count = found["bpc"]
        unknown = (scored_targets(batch) == UNKNOWN).sum()
        return found | {"bpc": (bits + unknown * self.unknown_bits, count)}


class CharLM(CharTask):
    """Character-level language modelling of a benchmark text (Bai et al. 2018, section 5.2).

    On the Penn Treebank there is a second metric, `bpc_eos`: published scores count the end of a
    line as the five characters `<eos>`, here it is one. The same bits are divided by the larger
    number, as if a model knew for sure how a `<` at the end of a line goes on.

    Args:
        dataset: name of the text.
        length: characters in a window.
        context: leading characters of a window that repeat the previous window.
        train_size: number of leading characters used of the training text; `None`: all.
        eval_size: number of leading characters used of the validation and of the test text; `None`:
            all.
        shuffle: read the training windows in random order, and do not carry state in training.
        characters: characters of the vocabulary; `None`: those of the training text.

    Raises:
        ConfigError: as for `TextTask`.
        DataError: if the text cannot be downloaded.
    """

    def __init__(
        self,
        dataset: Literal["ptb", "text8", "enwik8", "shakespeare", "nsmc"],
        length: int,
        context: int,
        train_size: int | None,
        eval_size: int | None,
        shuffle: bool = False,
        characters: str | None = None,
        *,
        batch_size: int,
        seed: int,
        data_dir: str | None,
    ) -> None:
        text = load_text(dataset, data_dir)
        super().__init__(
            text,
            characters_of(text, characters),
            length,
            context,
            train_size,
            eval_size,
            shuffle,
            batch_size=batch_size,
            seed=seed,
            data_dir=data_dir,
        )
        ends = self.vocabulary.encode("\n") if dataset == "ptb" else [0]
        self.line_end = int(ends[0]) or None
        if self.line_end is not None:
            scored = self.texts["test"][1:]
            added = (len(LINE_END) - 1) * int((scored == self.line_end).sum())
            self.notes["baseline_bpc_eos"] = self.baseline * len(scored) / (len(scored) + added)

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, tuple[Tensor, int]]:
        found = super().metrics(outputs, batch)
        if self.line_end is not None:
            bits, count = found["bpc"]
            lines = int((scored_targets(batch) == self.line_end).sum())
            found["bpc_eos"] = bits, count + (len(LINE_END) - 1) * lines
        return found


class CharFile(CharTask):
    """Character-level language modelling of the user's own text.

    Args:
        path: the file, UTF-8.
        sha256: expected SHA-256 of the file; `None`: any.
        length: characters in a window.
        context: leading characters of a window that repeat the previous window.
        train_size: number of leading characters used of the training text; `None`: all.
        eval_size: number of leading characters used of the validation and of the test text; `None`:
            all.
        shuffle: read the training windows in random order, and do not carry state in training.
        characters: characters of the vocabulary; `None`: those of the training text.

    Raises:
        ConfigError: if no path is given, the SHA-256 differs, or as for `TextTask`.
        DataError: if the file cannot be read or is not UTF-8 text.
    """

    def __init__(
        self,
        path: str | None,
        sha256: str | None,
        length: int,
        context: int,
        train_size: int | None,
        eval_size: int | None,
        shuffle: bool = False,
        characters: str | None = None,
        *,
        batch_size: int,
        seed: int,
        data_dir: str | None,
    ) -> None:
        text = text_of(path, sha256)
        super().__init__(
            text,
            characters_of(text, characters),
            length,
            context,
            train_size,
            eval_size,
            shuffle,
            batch_size=batch_size,
            seed=seed,
            data_dir=data_dir,
        )


def characters_of(text: Text, characters: str | None) -> Vocabulary:
    """Return the vocabulary of some characters; `None`: of those of the training text."""
    # From the whole training text, since `train_size` must not change the model's size.
    return Vocabulary.from_text(text.train if characters is None else characters)
