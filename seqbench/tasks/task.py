"""Define the base classes of tasks. A task has a spec, data, a loss, metrics and a baseline."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, Literal

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
        scored: `(batch, time)` bool, the positions that are scored, none in the context; `None`:
            all.
        fresh: the batch does not continue the previous one, so a carried state must be reset.
        context: number of leading positions that repeat the previous segment and are not scored.
            They give models without carried state some past; models that carry state skip them.
        lengths: `(batch,)` int64, the time steps of each sequence, where they differ: the inputs
            are padded on the right to the longest. `None`: all are of the same length. For readout
            `last` and `mean`.
    """

    inputs: Tensor
    targets: Tensor
    scored: Tensor | None = None
    fresh: bool = True
    context: int = 0
    lengths: Tensor | None = None

    def answered_after_context(self) -> "Batch":
        """Return the batch without the targets of its context, for models with `skips_context`."""
        if not self.context:
            return self
        scored = None if self.scored is None else self.scored[:, self.context :]
        return replace(self, targets=self.targets[:, self.context :], scored=scored, context=0)

    def without_context(self) -> "Batch":
        """Return the batch without its context, for models that carry state."""
        return replace(self.answered_after_context(), inputs=self.inputs[:, self.context :])

    def scored_count(self) -> Tensor | int:
        """Return the number of terms in the mean of the loss: scored positions, or else rows."""
        return len(self.inputs) if self.scored is None else self.scored.sum()

    def split(self, parts: int) -> list["Batch"]:
        """Return `parts` micro-batches, or one for each row if there are fewer rows.

        They have the same number of rows if the batch size is a multiple of `parts`. All tensors
        are split along their first dimension, also those of a subclass.
        """
        parts = min(parts, len(self.inputs))
        if parts == 1:
            return [self]
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        pieces = {k: x.tensor_split(parts) for k, x in values.items() if isinstance(x, Tensor)}
        changes: list[dict[str, Any]] = [{k: x[i] for k, x in pieces.items()} for i in range(parts)]
        return [replace(self, **change) for change in changes]


@dataclass(frozen=True)
class Primary:
    """The metric that ranks models on a task.

    Attributes:
        metric: its key in the result of `Task.metrics`.
        direction: `min` if lower is better, `max` if higher is.
        solved: the value at which a model has solved the task; `None`: not defined.
        prefers_later: of weights with equal scores on validation, the later ones are kept. For
            scores with few values, such as the accuracy on ten sequences.
    """

    metric: str
    direction: Literal["min", "max"]
    solved: float | None = None
    prefers_later: bool = False

    def better(self, a: float, b: float) -> bool:
        """Return True if `a` is better than `b`."""
        return a < b if self.direction == "min" else a > b

    def replaces(self, value: float, best: float | None) -> bool:
        """Return True if weights that score `value` are kept instead of those that score `best`."""
        is_tie = self.prefers_later and value == best
        return best is None or is_tie or self.better(value, best)

    def is_solved(self, value: float) -> bool:
        """Return True if `value` is at least as good as `solved`; False if that is `None`."""
        return self.solved is not None and not self.better(self.solved, value)


class Task(ABC):
    """Base class of tasks. Subclasses set the attributes below in their constructor.

    A task is built as `MyTask(**config, batch_size=..., seed=..., data_dir=...)`. `seed` may change
    only the order of the training examples, not the data or the splits, so that all runs are scored
    on the same test set.

    Attributes:
        spec: the input, target, readout and length of the problem.
        primary: the metric that ranks models.
        baseline: the primary metric of a predictor without memory, such as a uniform guess.
        naive: the primary metric of naive predictors on test, by name; `baseline` is the best of
            them. Empty: `baseline` is that of a predictor without memory.
        optimum: the best possible value of the primary metric; `None`: not known.
        steps_per_epoch: training batches per epoch.
        checksums: SHA-256 of the data, by name, for the record.
        notes: facts about the data, for the record.
    """

    spec: SequenceSpec
    primary: Primary
    baseline: float
    naive: dict[str, float]
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
        self.naive = {}
        self.checksums = {}
        self.notes = {}

    def preprocessing(self) -> dict[str, Any]:
        """Return what turns raw data into model inputs, JSON-serializable; none by default.

        It is saved with the weights, so that a trained model can be used without the data.
        """
        return {}

    @abstractmethod
    def to(self, device: torch.device) -> None:
        """Move the data to the device, so that a batch is an indexing operation there."""

    @abstractmethod
    def train_batch(self, step: int) -> Batch:
        """Return the batch of a training step (from 0); it depends on step and seed only."""

    @abstractmethod
    def eval_batches(self, split: Split) -> Iterator[Batch]:
        """Yield all batches of a split in a fixed order, each scored position once."""

    @abstractmethod
    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return the mean loss over the scored positions, a scalar."""

    @abstractmethod
    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, tuple[Tensor, int]]:
        """Return each metric's sum over the batch (a scalar tensor) and its number of terms."""

    def scored_part(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return outputs and targets of the same examples or steps, to compare them one by one.

        For readout `every` both end at the last step; `batch.scored` masks them, if it is given. A
        task overrides this if the targets of its batches have another shape.
        """
        return outputs, batch.targets

    def metrics_of(self, means: dict[str, float]) -> dict[str, float]:
        """Return the metrics of a split from the means of what `metrics` returns: the same.

        A task overrides this for a metric that is no mean, such as the root of one.
        """
        return means


class ExampleTask(Task):
    """Base class of tasks whose data are independent sequences.

    Subclasses call `set_splits` and may override `encode` to build inputs from the stored data.

    Attributes:
        shuffle: shuffle the training sequences every epoch; if false, keep the order of the data.
    """

    shuffle = True

    def set_splits(self, splits: dict[Split, tuple[Tensor, Tensor]]) -> None:
        """Store the `(inputs, targets)` of each split; their first dimension is the examples.

        Raises:
            ConfigError: if a split is empty, or the training split is smaller than one batch.
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
        """Convert stored inputs to model inputs; by default they are the same."""
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
        # Evaluation needs no gradients, so a larger batch fits; 256 suits the CPU's caches.
        for x, y in zip(*(part.split(256) for part in self.splits[split]), strict=True):
            yield Batch(self.encode(x), y)


@lru_cache(maxsize=64)  # more than one, since seeds that are trained together alternate
def shuffled(n: int, seed: int, epoch: int, device: torch.device) -> Tensor:
    """Return the permutation of `n` examples for `(seed, epoch)`, the same on every device."""
    order = torch.randperm(n, generator=generator(seed, epoch))
    return order.to(device)


def generator(*key: int) -> torch.Generator:
    """Return a CPU generator seeded by a key of non-negative integers."""
    (state,) = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state))


def checksum(*tensors: Tensor) -> str:
    """Return the SHA-256 of CPU tensors, to verify that two machines generate the same data."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
