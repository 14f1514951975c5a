"""Language modelling of a text in words, or in the tokens of byte-pair encoding.

The score is the perplexity, the exp of the cross-entropy per token. It depends on the tokenization,
so bits per character (bpc) is reported, too: the bits of all tokens divided by the number of
characters, line ends included; a run of white space counts as one. For bpc an unknown word also
costs its spelling (Mielke 2019). Otherwise a small vocabulary, which replaces words by `<unk>`,
would look good.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal

import torch
from torch import Tensor

from seqbench.datasets.text import Text, load_text
from seqbench.errors import ConfigError
from seqbench.tasks.byte_pairs import BYTES, BytePairs
from seqbench.tasks.task import Batch, Primary, Split
from seqbench.tasks.text_task import TextTask, parts_of, text_of
from seqbench.tasks.tokenization import kept_tokenization
from seqbench.tasks.words import Words

UNIGRAM = "unigram"
# Of byte-pair encoding, where the config names none.
USUAL_VOCAB_SIZE = 2000


@dataclass(frozen=True)
class TextBatch(Batch):
    """A batch of an evaluation.

    Attributes:
        characters: number of characters of the scored targets.
        spelled: number of those in unknown words.
    """

    characters: int = 0
    spelled: int = 0


class WordTask(TextTask):
    """Base class of language modelling in words or pieces of words; arguments as for `TextTask`."""

    primary = Primary(metric="perplexity", direction="min")

    def __init__(
        self,
        text: Text,
        vocabulary: Words | BytePairs,
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
        super().__init__(
            text,
            vocabulary,
            length,
            context,
            train_size,
            eval_size,
            shuffle,
            batch_size=batch_size,
            seed=seed,
            data_dir=data_dir,
        )
        self.encoding = vocabulary
        self.parts = parts_of(text, train_size, eval_size)
        self._sizes: dict[Split, tuple[Tensor, Tensor]] = {}
        self.notes["unit"] = vocabulary.unit
        if isinstance(vocabulary, BytePairs):  # other versions of the library may merge otherwise
            self.notes["tokenizers"] = metadata.version("tokenizers")
        self.notes["unknown_train"] = vocabulary.unknown_count(self.parts["train"])
        self.notes |= {f"{split}_tokens": len(self.texts[split]) for split in ("train", "test")}
        characters, spelled = (int(size[1:].sum()) for size in self.sizes("test"))
        bits_per_token = self.baseline
        bits = bits_per_token * (len(self.texts["test"]) - 1) + spelled * vocabulary.spelling_bits
        self.notes["baseline_bpc"] = bits / characters
        self.notes["baseline_cross_entropy"] = bits_per_token * math.log(2)
        self.baseline = 2.0**bits_per_token
        self.naive = {UNIGRAM: self.baseline}

    def sizes(self, split: Split) -> tuple[Tensor, Tensor]:
        """Return the characters of each token, and these once more if it is unknown, else 0.

        Both are `(tokens,)` int64 on the CPU, where they are counted.
        """
        if split not in self._sizes:
            sizes, unknown = map(torch.from_numpy, self.encoding.spans(self.parts[split]))
            self._sizes[split] = sizes, sizes * unknown
        return self._sizes[split]

    def eval_batches(self, split: Split) -> Iterator[Batch]:
        windows = map(self.windows, (self.texts[split], *self.sizes(split)))
        for batch, *sizes in zip(*windows, strict=True):
            characters, spelled = (int(size.targets[size.scored].sum()) for size in sizes)
            yield TextBatch(**vars(batch), characters=characters, spelled=spelled)

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, tuple[Tensor, int]]:
        """Return sums; that of `perplexity` are nats, whose mean `metrics_of` exponentiates.

        Bits per character are for batches of `eval_batches` only, whose characters are counted.
        """
        nats, hits, count = self.sums(outputs, batch)
        found = {"perplexity": (nats, count), "cross_entropy": (nats, count)}
        if isinstance(batch, TextBatch):
            bits = nats / math.log(2) + batch.spelled * self.encoding.spelling_bits
            found["bpc"] = bits, batch.characters
        return found | {"accuracy": (hits, count)}

    def metrics_of(self, means: dict[str, float]) -> dict[str, float]:
        nats = means["perplexity"]
        # Above, exp overflows; the run then ends as diverged.
        return means | {"perplexity": math.exp(nats) if nats < 700 else math.inf}


class WordLM(WordTask):
    """Word-level language modelling of the Penn Treebank as prepared by Mikolov et al. (2010).

    Its vocabulary has the 10,000 words of the training text, `<unk>` and the line end among them.

    Args:
        dataset: name of the text.
        length: words in a window.
        context: leading words of a window that repeat the previous window.
        train_size: number of leading characters used of the training text; `None`: all.
        eval_size: number of leading characters used of the validation and of the test text; `None`:
            all.
        shuffle: read the training windows in random order, and do not carry state in training.

    Raises:
        ConfigError: as for `TextTask`.
        DataError: if the text cannot be downloaded.
    """

    def __init__(
        self,
        dataset: Literal["ptb"],
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
        text = load_text(dataset, data_dir)
        super().__init__(
            text,
            Words.from_text(text.train),
            length,
            context,
            train_size,
            eval_size,
            shuffle,
            batch_size=batch_size,
            seed=seed,
            data_dir=data_dir,
        )


class WordFile(WordTask):
    """Language modelling of the user's own text in words or byte pairs.

    Args:
        path: the file, UTF-8.
        sha256: expected SHA-256 of the file; `None`: any.
        tokens: `word`: what white space separates; `bpe`: byte-pair encoding.
        min_count: words that are rarer in the training text are unknown.
        vocab_size: most words, or number of tokens of byte-pair encoding; `None`: no limit, or
            2,000.
        length: tokens in a window.
        context: leading tokens of a window that repeat the previous window.
        train_size: number of leading characters used of the training text; `None`: all.
        eval_size: number of leading characters used of the validation and of the test text; `None`:
            all.
        shuffle: read the training windows in random order, and do not carry state in training.
        preprocessing: of a run, which has the tokenization; `None`: that of the training text.

    Raises:
        ConfigError: if no path is given, the SHA-256 differs, an option is out of range, a library
            is missing, or as for `TextTask`.
        DataError: if the file cannot be read or is not UTF-8 text.
    """

    def __init__(
        self,
        path: str | None,
        sha256: str | None,
        tokens: Literal["word", "bpe"],
        min_count: int,
        vocab_size: int | None,
        length: int,
        context: int,
        train_size: int | None,
        eval_size: int | None,
        shuffle: bool = False,
        preprocessing: dict[str, Any] | None = None,
        *,
        batch_size: int,
        seed: int,
        data_dir: str | None,
    ) -> None:
        if min_count < 1:
            raise ConfigError(f"task.min_count must be at least 1, not {min_count}")
        least = 3 if tokens == "word" else len(BYTES)
        if vocab_size is not None and vocab_size < least:
            raise ConfigError(
                f"task.vocab_size must be at least {least} with task.tokens={tokens}, "
                f"not {vocab_size}"
            )
        text = text_of(path, sha256)
        super().__init__(
            text,
            tokenization_of(text, tokens, min_count, vocab_size, preprocessing),
            length,
            context,
            train_size,
            eval_size,
            shuffle,
            batch_size=batch_size,
            seed=seed,
            data_dir=data_dir,
        )


def tokenization_of(
    text: Text,
    tokens: Literal["word", "bpe"],
    min_count: int,
    vocab_size: int | None,
    preprocessing: Mapping[str, Any] | None,
) -> Words | BytePairs:
    """Return the tokenization of a training text, or the one that is kept with a run.

    Raises:
        ConfigError: if a library is missing.
    """
    kept = kept_tokenization(preprocessing or {})
    if isinstance(kept, Words | BytePairs):
        return kept
    # From the whole training text, since `train_size` must not change the model's size.
    if tokens == "word":
        return Words.from_text(text.train, min_count, vocab_size)
    return BytePairs.from_text(text.train, vocab_size or USUAL_VOCAB_SIZE)
