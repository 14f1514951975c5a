"""Character-level language modelling: predict every character of a text from those before it.

A text of N characters gives N - 1 predictions. It is read in windows of `length` characters whose
first `context` repeat the end of the window before. They let a model without memory see some past,
and are not scored again, so that each prediction is scored exactly once:

    text      a b c d e f g h i j k        length 5, context 2, hence stride 3
    window 0  a b c d e                    scored: all five (the answers b to f)
    window 1        d e f g h              scored: after f, g, h
    window 2              g h i j k        scored: after i, j; what follows k is not known

The windows are dealt to the rows of a batch in runs, row 0 the first run, row 1 the next, and so
on, so that in every row a batch goes on where the batch before ended and a recurrent model may
carry its state.
"""

import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from seqbench.datasets.text import Text, load_text, load_text_file
from seqbench.errors import ConfigError
from seqbench.spec import Classes, SequenceSpec, Tokens
from seqbench.tasks.task import Batch, Primary, Split, Task, generator
from seqbench.tasks.vocabulary import Vocabulary

# Fixed, so that a score does not depend on the training's batch size. Each row begins with no more
# past than `context`: few rows begin seldom, many are fast. At 32 a row of the Penn Treebank's test
# set is 14,000 characters long, and a batch is as large as a usual training batch, so it fits.
EVAL_ROWS = 32

UNSCORED = -100


class SegmentTask(Task):
    """Language modelling of texts of token ids, in segments that may continue each other.

    Args:
        texts: the ids of each split, `(characters,)`.
        vocabulary: what the ids stand for.
        length: positions in a window.
        context: leading positions of a window that repeat the one before.

    Attributes:
        vocabulary: what the ids stand for.

    Raises:
        ConfigError: a text is too short, or `length` and `context` do not fit together.
    """

    primary = Primary(metric="bpc", direction="min")

    def __init__(
        self,
        texts: Mapping[Split, NDArray[Any]],
        vocabulary: Vocabulary,
        length: int,
        context: int,
        *,
        batch_size: int,
        seed: int,
        data_dir: str | None,
    ) -> None:
        super().__init__(batch_size, seed, data_dir)
        if not 0 <= context < length:
            raise ConfigError(f"task.context={context} must be in [0, task.length={length})")
        for split, text in texts.items():
            if len(text) < 2:
                raise ConfigError(f"the {split} text has {len(text)} characters: 2 are needed")
        self.texts = {split: torch.from_numpy(text) for split, text in texts.items()}
        train = self.texts["train"]
        stride = length - context
        self.steps_per_epoch = (len(train) - length) // (batch_size * stride)
        if self.steps_per_epoch < 1:
            raise ConfigError(
                f"the training text has {len(train):,} characters, but one batch of {batch_size} "
                f"windows of length {length} and context {context} takes "
                f"{batch_size * stride + length:,}: lower trainer.batch_size or task.length, "
                "or use a longer text"
            )
        self.vocabulary = vocabulary
        self.length = length
        self.context = context
        self.stride = stride
        size = len(vocabulary)
        self.spec = SequenceSpec(Tokens(size), Classes(size), "every", length)
        self.baseline = math.log2(size)
        self.notes["unigram_bpc"] = entropy(torch.bincount(train, minlength=size))

    def to(self, device: torch.device) -> None:
        self.texts = {split: text.to(device) for split, text in self.texts.items()}

    def train_batch(self, step: int) -> Batch:
        epoch, segment = divmod(step, self.steps_per_epoch)
        text = self.texts["train"]
        # What the full batches of an epoch leave over is at least stride - 1 characters. Where
        # they lie, before or after, is drawn anew each epoch: the windows differ, and no part of
        # the text is always left out.
        spare = len(text) - 1 - self._reach(self.batch_size * self.steps_per_epoch)
        text = text[shift(spare, self.seed, epoch) :]
        return self._segment(text, self.batch_size, self.steps_per_epoch, segment)

    def eval_batches(self, split: Split) -> Iterator[Batch]:
        text = self.texts[split]
        windows = 1 + max(0, math.ceil((len(text) - 1 - self.length) / self.stride))
        segments = math.ceil(windows / EVAL_ROWS)
        # No more rows than hold a window, so that none is padding from its start.
        rows = math.ceil(windows / segments)
        for segment in range(segments):
            yield self._segment(text, rows, segments, segment)

    def _reach(self, windows: int) -> int:
        """Predictions from the start of the text to the end of so many windows."""
        return (windows - 1) * self.stride + self.length

    def _segment(self, text: Tensor, rows: int, segments: int, segment: int) -> Batch:
        """One segment of each row, when each row is a run of `segments` windows of the text."""
        first = torch.arange(segment, rows * segments, segments, device=text.device) * self.stride
        offsets = torch.arange(self.length + 1, device=text.device)
        places = first[:, None] + offsets
        window = text[places.clamp(max=len(text) - 1)].long()
        scored = places[:, 1:] < len(text)
        # The text's first window has no window before it that scored its context.
        scored[1 if segment == 0 else 0 :, : self.context] = False
        return Batch(
            window[:, :-1].contiguous(),  # a user's model may view it as another shape
            window[:, 1:],
            scored,
            fresh=segment == 0,
            context=0 if segment == 0 else self.context,
        )

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean cross-entropy of the scored positions, in nats."""
        return cross_entropy(outputs, scored_targets(batch), "mean")

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, tuple[Tensor, int]]:
        targets = scored_targets(batch)
        count = int((targets != UNSCORED).sum())
        nats = cross_entropy(outputs, targets, "sum")
        hits = (outputs.argmax(-1) == targets).sum()
        return {"bpc": (nats / math.log(2), count), "accuracy": (hits, count)}


class TextTask(SegmentTask):
    """Character-level language modelling of a text.

    Args:
        text: train, valid and test.
        length: characters in a window.
        context: leading characters of a window that repeat the one before.
        train_size: use the first so many characters of the training text; `None`: all.
        eval_size: the same for valid and test.
    """

    def __init__(
        self,
        text: Text,
        length: int,
        context: int,
        train_size: int | None,
        eval_size: int | None,
        *,
        batch_size: int,
        seed: int,
        data_dir: str | None,
    ) -> None:
        for name, size in (("train_size", train_size), ("eval_size", eval_size)):
            if size is not None and size < 2:
                raise ConfigError(f"task.{name} must be at least 2 characters, not {size}")
        train, valid, test = text.train[:train_size], text.valid[:eval_size], text.test[:eval_size]
        # Of the whole training text, whatever part is used: a budget must not change the model.
        vocabulary = Vocabulary.from_text(text.train)
        super().__init__(
            {
                "train": vocabulary.encode(train),
                "valid": vocabulary.encode(valid),
                "test": vocabulary.encode(test),
            },
            vocabulary,
            length,
            context,
            batch_size=batch_size,
            seed=seed,
            data_dir=data_dir,
        )
        self.checksums = text.checksums
        self.notes["unknown_valid"] = vocabulary.unknown_count(valid)
        self.notes["unknown_test"] = vocabulary.unknown_count(test)


class CharLM(TextTask):
    """Character-level language modelling of a benchmark text (Bai et al. 2018, section 5.2).

    Args:
        dataset: name of the text.
        length: characters in a window.
        context: leading characters of a window that repeat the one before.
        train_size: use the first so many characters of the training text; `None`: all.
        eval_size: the same for valid and test.
    """

    def __init__(
        self,
        dataset: Literal["ptb", "text8", "enwik8", "shakespeare"],
        length: int,
        context: int,
        train_size: int | None,
        eval_size: int | None,
        *,
        batch_size: int,
        seed: int,
        data_dir: str | None,
    ) -> None:
        super().__init__(
            load_text(dataset, data_dir),
            length,
            context,
            train_size,
            eval_size,
            batch_size=batch_size,
            seed=seed,
            data_dir=data_dir,
        )


class CharFile(TextTask):
    """Character-level language modelling of the user's own text.

    Args:
        path: the file, UTF-8.
        sha256: of the file; the text is refused if it is another. `None`: any text.
        length: characters in a window.
        context: leading characters of a window that repeat the one before.
        train_size: use the first so many characters of the training text; `None`: all.
        eval_size: the same for valid and test.

    Raises:
        ConfigError: no path is given, or the text is another one than the configuration means.
    """

    def __init__(
        self,
        path: str | None,
        sha256: str | None,
        length: int,
        context: int,
        train_size: int | None,
        eval_size: int | None,
        *,
        batch_size: int,
        seed: int,
        data_dir: str | None,
    ) -> None:
        if path is None:
            raise ConfigError("no text is given: set task.path=my.txt")
        text = load_text_file(path)
        if sha256 is not None and sha256 not in text.checksums.values():
            raise ConfigError(f"{path} has changed since this run was configured")
        super().__init__(
            text,
            length,
            context,
            train_size,
            eval_size,
            batch_size=batch_size,
            seed=seed,
            data_dir=data_dir,
        )


def scored_targets(batch: Batch) -> Tensor:
    """The targets, with `UNSCORED` at the positions that do not count."""
    if batch.scored is None:
        return batch.targets
    # A mask instead of a selection: its shape is known, so the device need not be waited for.
    return batch.targets.masked_fill(~batch.scored, UNSCORED)


def cross_entropy(outputs: Tensor, targets: Tensor, reduction: str) -> Tensor:
    """Cross-entropy in nats of `(batch, time, vocabulary)` logits, in single precision."""
    # Flattened, since torch's CPU kernel wants the classes last: twice as fast as transposed.
    logits = outputs.float().flatten(0, 1)
    return F.cross_entropy(logits, targets.flatten(), ignore_index=UNSCORED, reduction=reduction)


def entropy(counts: Tensor) -> float:
    """Entropy in bits of a distribution given by counts."""
    p = counts[counts > 0].double() / counts.sum()
    return -float((p * p.log2()).sum())


@lru_cache(maxsize=64)
def shift(spare: int, seed: int, epoch: int) -> int:
    """Where the training text begins in an epoch, at most `spare` characters late."""
    return int(torch.randint(spare + 1, (), generator=generator(seed, epoch)))
