"""Classify labelled sequences, of one length or of several.

Sequences of different length are padded on the right, and each is scored at its own last step (or
by the mean over its own steps). The models are causal, so padding changes nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from seqbench.datasets.labelled import Labelled, class_names
from seqbench.errors import ConfigError, DataError
from seqbench.spec import Classes, SequenceSpec
from seqbench.tasks.like_lengths import rows_of_batch
from seqbench.tasks.sequence_features import (
    ClassifierFeatures,
    Missing,
    SequenceFeatures,
    Sequences,
)
from seqbench.tasks.table_features import fit_scaler
from seqbench.tasks.task import Batch, Primary, Split, Task
from seqbench.wording import plain

Pool = Literal["last", "mean"]


class Classification(Task):
    """Base class of tasks that classify sequences. Subclasses call `set_data`.

    Args:
        pool: the readout of the models, `last` step or `mean` over the steps.
        missing: `error`, or `mask`: missing values are 0, with an indicator for each channel.
        class_weight: `balanced`: in the loss, a sequence counts inversely to the frequency of its
            class in training; `None`: all count the same.
        eval_size: sequences of validation and of test, evenly spread; `None`: all.
    """

    primary = Primary("accuracy", "max", prefers_later=True)

    def __init__(
        self,
        pool: Pool,
        missing: Missing,
        class_weight: Literal["balanced"] | None,
        eval_size: int | None,
        *,
        batch_size: int,
        seed: int,
        data_dir: str | None,
    ) -> None:
        super().__init__(batch_size, seed, data_dir)
        if eval_size is not None and eval_size < 1:
            raise ConfigError(f"task.eval_size must be at least 1, not {eval_size}")
        self.pool, self.missing = pool, missing
        self.class_weight, self.eval_size = class_weight, eval_size

    def complete(self, data: Labelled) -> Labelled:
        """Return sequences whose values are finite, or missing where that is allowed.

        Raises:
            DataError: if they are not.
        """
        hint = "task.missing=mask gives the models an indicator of missing values"
        data.check_complete(missing=self.missing == "mask", hint=hint)
        return data

    def set_data(
        self,
        data: Labelled,
        rows: dict[Split, NDArray[np.int64]],
        columns: tuple[str, str | None, str] = ("id", None, "label"),
        file_channels: int | None = None,
    ) -> None:
        """Fit scaler and classes to the training sequences, and set all attributes of the task.

        Args:
            data: the sequences of all splits.
            rows: the places of the sequences of each split.
            columns: `id`, `time` and `label` of a table, for `predict`.
            file_channels: number of channels of the training file; `None`: those of `data`.

        Raises:
            DataError: if there is one class only, or a class of validation or test is not in
                training.
        """
        assert data.labels is not None
        classes = class_names([data.labels[row] for row in rows["train"]])
        if len(classes) < 2:
            raise DataError(f"{data.path}: expected at least 2 classes, got {len(classes)}")
        inside = [slice(data.starts[i], data.starts[i] + data.lengths[i]) for i in rows["train"]]
        mean, std = fit_scaler(data.values, inside, [])
        features = SequenceFeatures(
            *columns,
            file_channels=file_channels or len(data.channels),
            channels=list(data.channels),
            classes=classes,
            masks=self.missing == "mask",
            mean=mean,
            std=std,
        )
        self.set_sequences(features, features.of(data), data.labels, data.path, rows)

    def set_sequences(
        self,
        features: ClassifierFeatures,
        sequences: Sequences,
        labels: Sequence[str],
        path: str,
        rows: Mapping[Split, NDArray[np.int64]],
    ) -> None:
        """Set all attributes of the task with features that are fitted already.

        Args:
            features: have made the inputs, and name the classes.
            sequences: the inputs of all splits.
            labels: the class of each sequence.
            path: the file, for errors.
            rows: the places of the sequences of each split. Without `train`, the majority class is
                that of test.

        Raises:
            DataError: if a class is not one of the features'.
        """
        classes = features.classes
        number = {label: i for i, label in enumerate(classes)}
        for split, own in rows.items():
            foreign = sorted({labels[row] for row in own} - number.keys())
            if foreign:
                raise DataError(
                    f"{path}: class '{plain(foreign[0])}' of {split} is not in the training "
                    f"sequences, which have {', '.join(map(plain, classes))}"
                )
        self.features, self.sequences = features, sequences
        self.targets = torch.tensor([number.get(label, 0) for label in labels])
        self.rows = {split: torch.from_numpy(own) for split, own in rows.items()}
        if self.eval_size is not None:
            for split, places in self.rows.items():
                size = min(self.eval_size, len(places))
                if split != "train":
                    self.rows[split] = places[torch.arange(size) * len(places) // size]
        self.set_facts()

    def set_facts(self) -> None:
        """Set the spec, the batches of an epoch, the weights of the classes, baseline and notes."""
        tested = self.targets[self.rows["test"]]
        trained = self.rows.get("train", self.rows["test"])
        lengths = self.sequences.lengths
        used = torch.cat(list(self.rows.values()))
        variable = len(lengths[used].unique()) > 1
        classes = Classes(len(self.features.classes))
        longest = int(lengths[trained].max())
        self.spec = SequenceSpec(self.features.input, classes, self.pool, longest, variable)
        self.batch_size = min(self.batch_size, len(trained))
        self.steps_per_epoch = -(-len(trained) // self.batch_size)
        counts = torch.bincount(self.targets[trained], minlength=classes.n)
        self.weights = torch.ones(classes.n)
        if self.class_weight == "balanced":
            self.weights = len(trained) / (classes.n * counts.clamp(min=1)).float()
        majority = int(counts.argmax())
        share = float((tested == majority).float().mean())
        self.baseline, self.naive = share, {"majority class": share}
        self.notes |= {f"{split}_sequences": len(own) for split, own in self.rows.items()}
        self.notes |= self.features.notes
        self.notes["classes"] = ", ".join(map(plain, self.features.classes))
        if variable:
            self.notes["lengths"] = f"{int(lengths[used].min())} to {int(lengths[used].max())}"

    def preprocessing(self) -> dict[str, Any]:
        return self.features.to_json()

    def to(self, device: torch.device) -> None:
        self.sequences = self.sequences.to(device)
        self.targets, self.weights = self.targets.to(device), self.weights.to(device)

    def train_batch(self, step: int) -> Batch:
        return self.batch(self.rows["train"][self.training_rows(step)])

    def training_rows(self, step: int) -> Tensor:
        """Return the training sequences of a batch: each is in one batch of an epoch."""
        epoch, index = divmod(step, self.steps_per_epoch)
        lengths = self.sequences.lengths[self.rows["train"]]
        return rows_of_batch(lengths, self.batch_size, self.seed, epoch, index)

    def eval_batches(self, split: Split) -> Iterator[Batch]:
        for rows in self.sequences.parts(self.rows[split]):
            yield self.batch(rows)

    def batch(self, rows: Tensor) -> Batch:
        """Return the batch of some sequences."""
        inputs, lengths = self.sequences.padded(rows)
        return Batch(inputs, self.targets[rows.to(self.targets.device)], lengths=lengths)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return the mean cross-entropy, weighted by class."""
        entropy = F.cross_entropy(outputs.float(), batch.targets, self.weights, reduction="sum")
        return entropy / len(outputs)

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, tuple[Tensor, int]]:
        """Return accuracy and cross-entropy, and for `metrics_of` recall and F1 of each class."""
        chosen, n = outputs.argmax(-1), self.weights.numel()
        entropy = F.cross_entropy(outputs.float(), batch.targets, reduction="sum")
        right = batch.targets[chosen == batch.targets]
        hits, are, said = (torch.bincount(x, minlength=n) for x in (right, batch.targets, chosen))
        found = {
            "accuracy": (hits.sum(), len(outputs)),
            "cross_entropy": (entropy, len(outputs)),
        }
        for i, (own, other) in enumerate(zip(are.tolist(), said.tolist(), strict=True)):
            if own:
                found[f"recall_{i}"] = hits[i], own
            if own + other:
                found[f"f1_{i}"] = 2 * hits[i], own + other
        return found

    def metrics_of(self, means: dict[str, float]) -> dict[str, float]:
        """Replace recall and F1 of the classes by their means, balanced accuracy and macro F1."""
        found = {name: means[name] for name in ("accuracy", "cross_entropy")}
        for name, part in (("balanced_accuracy", "recall_"), ("macro_f1", "f1_")):
            each = [value for key, value in means.items() if key.startswith(part)]
            found[name] = sum(each) / len(each)
        return found


def fitting(test: Labelled, train: Labelled, file_channels: int) -> Labelled:
    """Return the sequences of a test file with the channels of training, by name.

    Args:
        test: of the test file.
        train: the training sequences, with the channels that are read.
        file_channels: number of channels of the training file.

    Raises:
        DataError: if it has no classes or lacks a channel.
    """
    if test.labels is None:
        raise DataError(f"{test.path} has no classes")
    test.check_channel_count(file_channels)
    try:
        return test.of_channels(train.channels, "task.test_path")
    except ConfigError as error:
        raise DataError(str(error)) from error


def chosen_channels(data: Labelled, channels: str | Sequence[str]) -> Labelled:
    """Return the sequences of a training file with some channels, `all` or a list.

    Raises:
        ConfigError: if there is no such channel.
        DataError: if the file has no classes.
    """
    if data.labels is None:
        raise DataError(
            f"{data.path} has no classes: expected an array y in an npz file, @classLabel true in "
            "a .ts file, or the column that task.label names in a table"
        )
    names = named_channels(channels)
    return data if names is None else data.of_channels(names, "task.channels")


def named_channels(channels: str | Sequence[str]) -> list[str] | None:
    """Return the channels that `task.channels` names; `None`: all."""
    names = [channels] if isinstance(channels, str) else list(channels)
    return None if names == ["all"] else names
