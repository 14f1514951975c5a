"""What a task is: a sequence problem with its data, its loss and the scores to hold a model to."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from seqbench.errors import ConfigError
from seqbench.spec import SequenceSpec

Split = Literal["train", "valid", "test"]


@dataclass(frozen=True)
class Batch:
    """A batch of sequences, or of segments of longer texts.

    Attributes:
        inputs: `(batch, time)` int64 or `(batch, time, dim)` float.
        targets: `(batch,)` or `(batch, dim)` for readout `last`; `(batch, time)` for `every`.
        scored: `(batch, time)` bool, the positions that count, none in the context; `None`: all.
        fresh: new texts begin here, so that a carried state must be dropped.
        context: leading positions that repeat the end of the segment before, and are not scored.
            They are there for models without memory; whoever carries a state from that segment
            skips them.
    """

    inputs: Tensor
    targets: Tensor
    scored: Tensor | None = None
    fresh: bool = True
    context: int = 0

    def answered_after_context(self) -> "Batch":
        """The same segment for a model that reads its context and does not answer there."""
        if not self.context:
            return self
        scored = None if self.scored is None else self.scored[:, self.context :]
        return replace(self, targets=self.targets[:, self.context :], scored=scored, context=0)

    def without_context(self) -> "Batch":
        """The same segment for a model that remembers the one before."""
        return replace(self.answered_after_context(), inputs=self.inputs[:, self.context :])

    def split(self, parts: int) -> list["Batch"]:
        """Cut into `parts` micro-batches of equal size, along the first dimension."""
        if parts == 1:
            return [self]
        pieces = zip(
            self.inputs.chunk(parts),
            self.targets.chunk(parts),
            [None] * parts if self.scored is None else self.scored.chunk(parts),
            strict=True,
        )
        return [Batch(x, y, scored, self.fresh, self.context) for x, y, scored in pieces]


@dataclass(frozen=True)
class Primary:
    """The metric that ranks models on a task.

    Attributes:
        metric: its name among what `Task.metrics` returns.
        direction: `min` or `max`, whichever is better.
        solved: a model that reaches this value on a split has solved the task, if that can be said.
    """

    metric: str
    direction: Literal["min", "max"]
    solved: float | None = None

    def better(self, a: float, b: float) -> bool:
        """Whether `a` is better than `b`."""
        return a < b if self.direction == "min" else a > b

    def is_solved(self, value: float) -> bool:
        """Whether `value` counts as solved; never, where the task names no such value."""
        return self.solved is not None and not self.better(self.solved, value)


class Task(ABC):
    """A sequence problem. Subclasses set the attributes below in their constructor.

    A task is built as `MyTask(**config, batch_size=..., seed=..., data_dir=...)`. Its data and its
    splits must not depend on `seed`, so that all runs are scored on the same test set; only the
    order of the training examples does.

    Attributes:
        spec: the form of the problem.
        primary: the metric that ranks models.
        baseline: what a predictor without memory scores on it.
        optimum: the best score that any predictor can reach, where it is known.
        steps_per_epoch: training batches in one pass over the training data.
        checksums: SHA-256 of the data, by name, for the record.
        notes: facts about the data that a reader of the record should know.
    """

    spec: SequenceSpec
    primary: Primary
    baseline: float
    optimum: float | None = None
    steps_per_epoch: int
    checksums: dict[str, str]
    notes: dict[str, int | float | str]

    def __init__(self, batch_size: int, seed: int, data_dir: str | None) -> None:
        if batch_size < 1:
            raise ConfigError(f"trainer.batch_size must be at least 1, not {batch_size}")
        self.batch_size = batch_size
        self.seed = seed
        self.data_dir = data_dir
        self.checksums = {}
        self.notes = {}

    @abstractmethod
    def to(self, device: torch.device) -> None:
        """Move the data to the device; a batch is then an index into it."""

    @abstractmethod
    def train_batch(self, step: int) -> Batch:
        """The batch of training step `step` (from 0), a function of the step and the seed only."""

    @abstractmethod
    def eval_batches(self, split: Split) -> Iterator[Batch]:
        """All of a split in a fixed order, every scored position once."""

    @abstractmethod
    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean loss over the scored positions, a scalar."""

    @abstractmethod
    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, tuple[Tensor, int]]:
        """Per metric the sum over the batch (a scalar tensor) and the number of terms in it."""


class ExampleTask(Task):
    """A task whose data is a table of independent sequences.

    Subclasses call `set_splits` and may override `encode` to build inputs from what they store.

    Attributes:
        shuffle: draw the order of the training sequences anew each epoch; else it is always that of
            the data.
    """

    shuffle = True

    def set_splits(self, splits: dict[Split, tuple[Tensor, Tensor]]) -> None:
        """Keep `(inputs, targets)` of each split, first dimension the examples.

        Raises:
            ConfigError: fewer training sequences than one batch needs, or none to evaluate on.
        """
        for split, (_, targets) in splits.items():
            if not len(targets):
                raise ConfigError(f"the {split} split is empty: raise task.train_size or eval_size")
        self.splits = splits
        self.steps_per_epoch = len(splits["train"][1]) // self.batch_size
        if not self.steps_per_epoch:
            raise ConfigError(
                f"trainer.batch_size={self.batch_size} is more than the task's "
                f"{len(splits['train'][1])} training sequences"
            )

    def to(self, device: torch.device) -> None:
        self.splits = {k: (x.to(device), y.to(device)) for k, (x, y) in self.splits.items()}

    def encode(self, inputs: Tensor) -> Tensor:
        """What the model reads, from what is stored."""
        return inputs

    def train_batch(self, step: int) -> Batch:
        epoch, index = divmod(step, self.steps_per_epoch)
        inputs, targets = self.splits["train"]
        chosen: slice | Tensor = slice(index * self.batch_size, (index + 1) * self.batch_size)
        if self.shuffle:
            chosen = shuffled(len(targets), self.seed, epoch, targets.device)[chosen]
        return Batch(self.encode(inputs[chosen]), targets[chosen])

    def eval_batches(self, split: Split) -> Iterator[Batch]:
        if split not in self.splits:
            raise ConfigError(f"the task has no {split} split: set trainer.watch=test")
        # Evaluation needs no gradients, so a larger batch fits; 256 keeps the CPU's caches warm.
        for x, y in zip(*(part.split(256) for part in self.splits[split]), strict=True):
            yield Batch(self.encode(x), y)


@lru_cache(maxsize=64)  # seeds that are trained together take turns
def shuffled(n: int, seed: int, epoch: int, device: torch.device) -> Tensor:
    """A permutation of `n` examples, the same on every device, fixed by `(seed, epoch)`."""
    order = torch.randperm(n, generator=generator(seed, epoch))
    return order.to(device)


def generator(*key: int) -> torch.Generator:
    """A CPU generator whose stream is fixed by a key of non-negative integers."""
    (state,) = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state))


def checksum(*tensors: Tensor) -> str:
    """SHA-256 of the bytes of CPU tensors: tells whether two machines made the same data."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
