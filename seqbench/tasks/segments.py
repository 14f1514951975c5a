"""Language modelling: predict each token of a text from those before it.

A text of N tokens gives N - 1 predictions. It is read in windows of `length` tokens, whose
first `context` tokens repeat the end of the previous window. They give a model without carried
state some past, and are not scored again, so that each prediction is scored exactly once:

    text      a b c d e f g h i j k        length 5, context 2, hence stride 3
    window 0  a b c d e                    scored: all five (targets b to f)
    window 1        d e f g h              scored: after f, g, h
    window 2              g h i j k        scored: after i, j (k has no target)

Each row of a batch reads a contiguous run of windows: row 0 the first run, row 1 the next, and so
on. In every row a batch continues the previous batch, so a model can carry its state. A model
without state learns more from training windows in random order, since neighbours resemble each
other.
"""

import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from seqbench.errors import ConfigError
from seqbench.spec import Classes, SequenceSpec, Tokens
from seqbench.tasks.task import Batch, Primary, Split, Task, generator, shuffled
from seqbench.tasks.tokenization import Tokenization
from seqbench.tasks.vocabulary import UNKNOWN

# Evaluation batch size, fixed so that a score does not depend on the training batch size. Each row
# starts with no past but its context, so fewer rows score better; more rows run faster. With 32, a
# row of the Penn Treebank test set has 14,000 characters, and memory suffices as in training.
EVAL_ROWS = 32

UNSCORED = -100


class SegmentTask(Task):
    """Base class of language modelling of token id texts; each batch continues the previous one.

    Args:
        texts: the ids of each split, `(tokens,)`.
        vocabulary: maps between ids and texts.
        length: positions in a window.
        context: leading positions of a window that repeat the previous window.
        shuffle: read the training windows in random order, and do not carry state in training.

    Attributes:
        vocabulary: maps between ids and texts.
        unknown_bits: bits that an unknown token costs beside its id; 0 where tokens are counted.

    Raises:
        ConfigError: if a text is too short, or `context` is not in `[0, length)`.
    """

    primary = Primary(metric="bpc", direction="min")
    unknown_bits = 0.0

    def __init__(
        self,
        texts: Mapping[Split, NDArray[Any]],
        vocabulary: Tokenization,
        length: int,
        context: int,
        shuffle: bool = False,
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
                unit = vocabulary.unit
                raise ConfigError(f"the {split} text has {len(text)} {unit}: 2 are needed")
        self.texts = {split: torch.from_numpy(text) for split, text in texts.items()}
        train = self.texts["train"]
        stride = length - context
        self.steps_per_epoch = (len(train) - length) // (batch_size * stride)
        if self.steps_per_epoch < 1:
            raise ConfigError(
                f"the training text has {len(train):,} {vocabulary.unit}, but one batch of "
                f"{batch_size} windows of length {length} and context {context} takes "
                f"{batch_size * stride + length:,}: lower trainer.batch_size or task.length, "
                "or use a longer text"
            )
        self.vocabulary = vocabulary
        self.length = length
        self.context = context
        self.shuffle = shuffle
        self.stride = stride
        size = len(vocabulary)
        self.spec = SequenceSpec(Tokens(size), Classes(size), "every", length)
        test = self.texts["test"]
        unknown = float((test[1:] == UNKNOWN).double().mean()) * self.unknown_bits
        self.baseline = unigram_nats(train, test, size) / math.log(2) + unknown

    def preprocessing(self) -> dict[str, Any]:
        return {self.vocabulary.key: self.vocabulary.state()}

    def to(self, device: torch.device) -> None:
        self.texts = {split: text.to(device) for split, text in self.texts.items()}

    def train_batch(self, step: int) -> Batch:
        epoch, segment = divmod(step, self.steps_per_epoch)
        text = self.texts["train"]
        windows = self.batch_size * self.steps_per_epoch
        # The full batches of an epoch leave over at least stride - 1 tokens. How many of them
        # are before the first window is drawn each epoch, so that the windows differ and no part
        # of the text is always left out.
        spare = len(text) - 1 - self._reach(windows)
        text = text[shift(spare, self.seed, epoch) :]
        if not self.shuffle:
            return self._segment(text, self.batch_size, self.steps_per_epoch, segment)
        order = shuffled(windows, self.seed, epoch, text.device)
        tokens, scored = self._read(text, order[segment * self.batch_size :][: self.batch_size])
        scored[:, : self.context] = False
        return self._batch(tokens, scored, fresh=True, context=self.context)

    def eval_batches(self, split: Split) -> Iterator[Batch]:
        yield from self.windows(self.texts[split])

    def windows(self, text: Tensor) -> Iterator[Batch]:
        """Yield the batches of an evaluation of a text, `(tokens,)` of integers."""
        windows = 1 + max(0, math.ceil((len(text) - 1 - self.length) / self.stride))
        segments = math.ceil(windows / EVAL_ROWS)
        # The fewest rows that hold all windows in that many segments: no row is all padding.
        rows = math.ceil(windows / segments)
        for segment in range(segments):
            yield self._segment(text, rows, segments, segment)

    def _reach(self, windows: int) -> int:
        """Return the number of text positions that the first `windows` windows cover."""
        return (windows - 1) * self.stride + self.length

    def _segment(self, text: Tensor, rows: int, segments: int, segment: int) -> Batch:
        """Return the batch of every row's window number `segment`.

        Args:
            text: the ids of the text.
            rows: rows of the batch.
            segments: windows per row.
            segment: index of the window within each row.
        """
        numbers = torch.arange(segment, rows * segments, segments, device=text.device)
        tokens, scored = self._read(text, numbers)
        # Score the context of the text's first window: no previous window has scored it.
        scored[1 if segment == 0 else 0 :, : self.context] = False
        context = 0 if segment == 0 else self.context
        return self._batch(tokens, scored, fresh=segment == 0, context=context)

    def _read(self, text: Tensor, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Read windows of a text.

        Args:
            text: the ids of the text.
            windows: the numbers of the windows, `(rows,)`.

        Returns:
            Ids, `(rows, length + 1)`, and which targets are in the text, `(rows, length)`.
        """
        offsets = torch.arange(self.length + 1, device=text.device)
        places = windows[:, None] * self.stride + offsets
        return text[places.clamp(max=len(text) - 1)].long(), places[:, 1:] < len(text)

    @staticmethod
    def _batch(tokens: Tensor, scored: Tensor, *, fresh: bool, context: int) -> Batch:
        inputs = tokens[:, :-1].contiguous()  # for user models that call view()
        return Batch(inputs, tokens[:, 1:], scored, fresh=fresh, context=context)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return the mean cross-entropy of the scored positions, in nats."""
        return cross_entropy(outputs, scored_targets(batch), "mean")

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, tuple[Tensor, int]]:
        nats, hits, count = self.sums(outputs, batch)
        return {"bpc": (nats / math.log(2), count), "accuracy": (hits, count)}

    def sums(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor, int]:
        """Return the cross-entropy in nats, the number of hits, and that of scored positions."""
        targets = scored_targets(batch)
        count = int((targets != UNSCORED).sum())
        nats = cross_entropy(outputs, targets, "sum")
        hits = (outputs.argmax(-1) == targets).sum()
        return nats, hits, count


def scored_targets(batch: Batch) -> Tensor:
    """Return the targets, with `UNSCORED` at the positions that are not scored."""
    if batch.scored is None:
        return batch.targets
    # Fill instead of select: the shape does not depend on the data, so the CPU need not wait for
    # the GPU.
    return batch.targets.masked_fill(~batch.scored, UNSCORED)


def cross_entropy(outputs: Tensor, targets: Tensor, reduction: str) -> Tensor:
    """Compute the cross-entropy in nats of `(batch, time, vocabulary)` logits, in float32."""
    # Flatten, since PyTorch's CPU kernel is twice as fast with the classes last.
    logits = outputs.float().flatten(0, 1)
    return F.cross_entropy(logits, targets.flatten(), ignore_index=UNSCORED, reduction=reduction)


def unigram_nats(train: Tensor, test: Tensor, size: int) -> float:
    """Return the cross-entropy of the predictions of a text by the token frequencies of another.

    Half an observation is added to each count, so that no probability is 0.

    Args:
        train: the ids that are counted, `(tokens,)`.
        test: the ids that are predicted, but for the first.
        size: number of ids.
    """
    counts = torch.bincount(train, minlength=size).double() + 0.5
    return -float((counts / counts.sum()).log()[test[1:].long()].mean())


@lru_cache(maxsize=64)
def shift(spare: int, seed: int, epoch: int) -> int:
    """Draw the offset of an epoch's first window in the training text, 0 to `spare`."""
    return int(torch.randint(spare + 1, (), generator=generator(seed, epoch)))
