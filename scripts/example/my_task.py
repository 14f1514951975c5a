"""Define a custom task: classify strings of bits by the parity of the number of ones."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from seqbench.spec import Classes, SequenceSpec, Tokens
from seqbench.tasks.task import Batch, ExampleTask, Primary, generator


class Parity(ExampleTask):
    """Random strings of bits; the target is 1 if the number of ones is odd, else 0."""

    def __init__(self, length: int, train_size: int, eval_size: int, **common: Any) -> None:
        super().__init__(**common)
        self.spec = SequenceSpec(Tokens(2), Classes(2), "last", length)
        self.primary, self.baseline = Primary("accuracy", "max", solved=0.99), 0.5
        sizes = {"train": train_size, "valid": eval_size, "test": eval_size}
        # Strings without repetition, so that the splits are disjoint.
        numbers = torch.randperm(2**length, generator=generator(0))[: sum(sizes.values())]
        parts = (numbers[:, None] >> torch.arange(length) & 1).split(list(sizes.values()))
        self.set_splits({name: (x, x.sum(1) % 2) for name, x in zip(sizes, parts, strict=True)})

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(outputs, batch.targets)

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, tuple[Tensor, int]]:
        return {"accuracy": ((outputs.argmax(-1) == batch.targets).sum(), len(batch.targets))}
