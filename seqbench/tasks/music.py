"""Polyphonic music: predict which keys sound next (Bai, Kolter, Koltun 2018, section 5.1).

A piano roll has 88 keys at each time step. From the steps so far, a model predicts the probability
that each key sounds at the next step. The score is the negative log-likelihood in nats, summed over
keys, with the mean over the time steps of all sequences. Each sequence is read from its beginning.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from seqbench.datasets.music import KEYS, Rolls, load_music
from seqbench.errors import ConfigError
from seqbench.spec import Features, SequenceSpec, Values
from seqbench.tasks.like_lengths import rows_of_batch
from seqbench.tasks.sequence_features import Sequences
from seqbench.tasks.task import Batch, Primary, Split, Task


class Music(Task):
    """Next-step prediction of the piano rolls of a dataset.

    Inputs are `(batch, time, 88)`, 1 where a key sounds; targets are the inputs of the next step. A
    model outputs logits. Sequences of different length are padded on the right; padding is not
    scored.

    Args:
        dataset: name of the dataset.
        train_size: training sequences, the first ones; `None`: all.
        eval_size: sequences of validation and of test, the first ones; `None`: all.

    Raises:
        ConfigError: if a size is under 1, or scipy is not installed.
        DataError: if the data cannot be downloaded or read.
    """

    primary = Primary("nll", "min")

    def __init__(
        self,
        dataset: Literal["jsb", "nottingham", "musedata", "piano"],
        train_size: int | None,
        eval_size: int | None,
        *,
        batch_size: int,
        seed: int,
        data_dir: str | None,
    ) -> None:
        super().__init__(batch_size, seed, data_dir)
        for name, size in {"train_size": train_size, "eval_size": eval_size}.items():
            if size is not None and size < 1:
                raise ConfigError(f"task.{name} must be at least 1, not {size}")
        whole, self.checksums = load_music(dataset, data_dir)
        sizes: dict[Split, int | None]
        sizes = {"train": train_size, "valid": eval_size, "test": eval_size}
        rolls = {split: whole[split][:size] for split, size in sizes.items()}
        self.splits = {split: sequences(own) for split, own in rolls.items()}
        lengths = self.splits["train"].lengths
        # The last step of a sequence is a target only.
        self.spec = SequenceSpec(
            Features(KEYS), Values(KEYS), "every", int(lengths.max()) - 1, variable_length=True
        )
        self.batch_size = min(batch_size, len(lengths))
        self.steps_per_epoch = -(-len(lengths) // self.batch_size)
        self.naive = naive_scores(rolls["train"], rolls["test"])
        self.baseline = min(self.naive.values())
        self.notes |= {f"{split}_sequences": len(own) for split, own in rolls.items()}
        steps = [len(roll) for own in rolls.values() for roll in own]
        self.notes["lengths"] = f"{min(steps)} to {max(steps)}"

    def to(self, device: torch.device) -> None:
        self.splits = {split: own.to(device) for split, own in self.splits.items()}

    def train_batch(self, step: int) -> Batch:
        epoch, index = divmod(step, self.steps_per_epoch)
        train = self.splits["train"]
        rows = rows_of_batch(train.lengths, self.batch_size, self.seed, epoch, index)
        return next_step(train, rows)

    def eval_batches(self, split: Split) -> Iterator[Batch]:
        own = self.splits[split]
        # Of like length, so that little is padded.
        for rows in own.parts(own.lengths.argsort(stable=True)):
            yield next_step(own, rows)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return the negative log-likelihood of a step, in nats, the mean over scored steps."""
        assert batch.scored is not None
        return (likelihoods(outputs, batch) * batch.scored).sum() / batch.scored.sum()

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, tuple[Tensor, int]]:
        """Return sums of the likelihoods, and the frame accuracy: keys that are right.

        The frame accuracy is TP / (TP + FP + FN) over all keys and steps (Bay et al. 2009).
        """
        assert batch.scored is not None
        scored = batch.scored
        sounds, said = batch.targets > 0, outputs > 0
        right = (sounds & said)[scored].sum()
        either = int((sounds | said)[scored].sum())
        found = {"nll": ((likelihoods(outputs, batch) * scored).sum(), int(scored.sum()))}
        return found | ({"frame_accuracy": (right, either)} if either else {})

    def scored_part(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the probability of each key, `(batch, time, 88)`, and the keys that sound."""
        return outputs.sigmoid(), batch.targets


def sequences(rolls: Rolls) -> Sequences:
    """Return piano rolls in one tensor."""
    steps = torch.from_numpy(np.concatenate(rolls)).float()
    return Sequences(steps, torch.tensor([len(roll) for roll in rolls]))


def next_step(own: Sequences, rows: Tensor) -> Batch:
    """Return the batch of some sequences, in which the target of a step is the next one."""
    rolls, lengths = own.padded(rows)
    time = rolls.shape[1] - 1
    if lengths is None:
        lengths = torch.full((len(rows),), time + 1, device=rolls.device)
    scored = torch.arange(time, device=rolls.device) < (lengths - 1)[:, None]
    return Batch(rolls[:, :-1].contiguous(), rolls[:, 1:].contiguous(), scored)


def likelihoods(outputs: Tensor, batch: Batch) -> Tensor:
    """Return the negative log-likelihood of each step, `(batch, time)`, in nats."""
    targets = batch.targets
    return F.binary_cross_entropy_with_logits(outputs.float(), targets, reduction="none").sum(-1)


def naive_scores(train: Rolls, test: Rolls) -> dict[str, float]:
    """Return the score on test of key frequencies of train, alone and given the step before.

    Half an observation is added to each count, so that no probability is 0.
    """
    before, after = pairs(train)
    tested_before, tested_after = pairs(test)
    count = len(after)
    frequency = (after.sum(0) + np.concatenate([roll[:1] for roll in train]).sum(0) + 0.5) / (
        count + len(train) + 1
    )
    after_sound = ((before * after).sum(0) + 0.5) / (before.sum(0) + 1)
    after_silence = (((1 - before) * after).sum(0) + 0.5) / ((1 - before).sum(0) + 1)
    persistent = np.where(tested_before > 0, after_sound, after_silence)
    return {
        "key frequencies": mean_likelihood(tested_after, frequency),
        "persistence": mean_likelihood(tested_after, persistent),
    }


def pairs(rolls: Rolls) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return all steps but the last of each roll, and all but the first, `(steps, 88)`."""
    before = np.concatenate([roll[:-1] for roll in rolls]).astype(float)
    return before, np.concatenate([roll[1:] for roll in rolls]).astype(float)


def mean_likelihood(keys: NDArray[np.float64], probability: NDArray[np.float64]) -> float:
    """Return the mean negative log-likelihood of a step, in nats."""
    each = np.where(keys > 0, -np.log(probability), -np.log1p(-probability))
    return float(each.sum() / len(keys))
