"""The adding problem (Hochreiter and Schmidhuber 1997; Bai, Kolter, Koltun 2018, section 4.1).

Two numbers in a long sequence are marked; the target is their sum. The baseline is a model without
memory: it predicts the mean, 1. Its mean squared error on the test split is near the variance of
the sum, 1/6, but for the sampling error of that split: 0.006 with 1,000 sequences.
"""

from typing import Literal

import torch
from torch import Tensor

from seqbench.errors import ConfigError
from seqbench.spec import Features, SequenceSpec, Values
from seqbench.tasks.task import Batch, ExampleTask, Primary, Split, checksum, generator

Markers = Literal["anywhere", "one_per_half"]


class Adding(ExampleTask):
    """The adding problem: sum the two marked numbers of a sequence.

    Inputs are `(batch, length, 2)`: a number drawn uniformly from [0, 1), and a marker that is 1 at
    two positions, else 0. Targets are `(batch, 1)`.

    Args:
        length: time steps.
        markers: positions of the two markers. `anywhere`: any two positions (the TCN paper's code);
            `one_per_half`: one in each half of the sequence (Arjovsky et al. 2016).
        train_size: training sequences; drawn once and reused every epoch.
        eval_size: sequences of the validation split, and of the test split.
        data_seed: seed of all splits.
        shuffle: shuffle the training sequences every epoch.

    Raises:
        ConfigError: if `length` is under 2 or a split is too small.
    """

    primary = Primary("mse", "min", solved=1e-3)
    optimum = 0.0

    def __init__(
        self,
        length: int,
        markers: Markers,
        train_size: int,
        eval_size: int,
        data_seed: int,
        shuffle: bool = True,
        *,
        batch_size: int,
        seed: int,
        data_dir: str | None,
    ) -> None:
        super().__init__(batch_size, seed, data_dir)
        self.shuffle = shuffle
        if length < 2:
            raise ConfigError(f"task.length must be at least 2 to hold two markers, not {length}")
        self.spec = SequenceSpec(Features(2), Values(1), "last", length)
        sizes: dict[Split, int] = {"train": train_size, "valid": eval_size, "test": eval_size}
        splits: dict[Split, tuple[Tensor, Tensor]] = {}
        for part, (split, size) in enumerate(sizes.items()):
            random = generator(data_seed, part)
            numbers = torch.rand(size, length, generator=random)
            places = marker_places(size, length, markers, random)
            inputs = torch.stack([numbers, torch.zeros_like(numbers).scatter_(1, places, 1)], -1)
            splits[split] = inputs, numbers.gather(1, places).sum(1, keepdim=True)
            self.checksums[split] = checksum(*splits[split])
        self.notes["markers"] = markers
        self.baseline = float((splits["test"][1].double() - 1).square().mean())
        self.set_splits(splits)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return torch.nn.functional.mse_loss(outputs.float(), batch.targets)

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, tuple[Tensor, int]]:
        error = (outputs.float() - batch.targets).square().sum()
        return {"mse": (error, len(outputs))}


def marker_places(size: int, length: int, markers: Markers, random: torch.Generator) -> Tensor:
    """Draw two distinct positions for each of `size` sequences, `(size, 2)` int64."""
    if markers == "one_per_half":
        half = length // 2
        first = torch.randint(half, (size, 1), generator=random)
        return torch.cat([first, torch.randint(half, length, (size, 1), generator=random)], 1)
    first = torch.randint(length, (size, 1), generator=random)
    # A distance of 1 to length - 1, modulo length, makes the other positions equally likely.
    distance = torch.randint(1, length, (size, 1), generator=random)
    return torch.cat([first, (first + distance) % length], 1)
