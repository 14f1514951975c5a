"""The copy memory task (Arjovsky et al. 2016; Bai, Kolter, Koltun 2018, section 4.1).

A model reads ten digits, blanks and a signal, and then repeats the digits. The baseline is a model
without memory: it predicts the blanks and guesses the ten digits among eight, which scores
10 ln 8 / (T + 20) nats, averaged over all positions.
"""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from seqbench.errors import ConfigError
from seqbench.spec import Classes, Features, SequenceSpec, Tokens
from seqbench.tasks.task import Batch, ExampleTask, Primary, Split, checksum, generator

NUM_RECALLED = 10
SYMBOLS = 10
BLANK, SIGNAL = 0, 9


class CopyMemory(ExampleTask):
    """The copy memory task: repeat ten digits after a long delay.

    A sequence has `length + 20` steps: ten digits from 1 to 8, `length - 1` blanks (0), and eleven
    signals (9). The target is blank, except at the last ten steps, where it repeats the digits.

    Args:
        length: T of the paper: steps between the digits and their recall.
        input: `scalar`: the digit is one real feature (the released code, and implied by the
            paper's parameter counts); `tokens`: each digit has an embedding.
        convention: `all_positions` averages the cross-entropy over all `length + 20` steps (the TCN
            paper); `recall_only` over the last ten (S4's benchmark). Their scores are not
            comparable.
        train_size: training sequences; drawn once and reused every epoch.
        eval_size: sequences of the validation split, and of the test split.
        data_seed: seed of all splits.
        shuffle: shuffle the training sequences every epoch.

    Raises:
        ConfigError: if `length` is under 1 or a split is too small.
    """

    def __init__(
        self,
        length: int,
        input: Literal["scalar", "tokens"],
        convention: Literal["all_positions", "recall_only"],
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
        if length < 1:
            raise ConfigError(f"task.length must be at least 1, not {length}")
        self.scored = NUM_RECALLED if convention == "recall_only" else length + 2 * NUM_RECALLED
        self.spec = SequenceSpec(
            Features(1) if input == "scalar" else Tokens(SYMBOLS),
            Classes(SYMBOLS),
            "every",
            length + 2 * NUM_RECALLED,
        )
        self.baseline = NUM_RECALLED * math.log(8) / self.scored
        self.optimum = 0.0
        # 0.1 % of the baseline: practically every digit is recalled.
        self.primary = Primary("cross_entropy", "min", solved=self.baseline / 1000)
        sizes: dict[Split, int] = {"train": train_size, "valid": eval_size, "test": eval_size}
        splits: dict[Split, tuple[Tensor, Tensor]] = {}
        for part, (split, size) in enumerate(sizes.items()):
            random = generator(data_seed, part)
            digits = torch.randint(1, 9, (size, NUM_RECALLED), generator=random, dtype=torch.uint8)
            self.checksums[split] = checksum(digits)
            splits[split] = digits, digits
        self.notes["convention"] = convention
        self.notes["baseline_recall_accuracy"] = 1 / 8
        self.length = length
        self.set_splits(splits)

    def encode(self, inputs: Tensor) -> Tensor:
        """Build the inputs from digits `(batch, 10)`.

        Returns:
            `(batch, time, 1)` float for `scalar`, `(batch, time)` int64 for `tokens`.
        """
        wait = inputs.new_full((len(inputs), self.length - 1), BLANK)
        signal = inputs.new_full((len(inputs), NUM_RECALLED + 1), SIGNAL)
        sequence = torch.cat([inputs, wait, signal], 1)
        return (
            sequence.float()[..., None]
            if isinstance(self.spec.input, Features)
            else sequence.long()
        )

    def scored_part(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return logits `(batch, scored, 10)` and targets `(batch, scored)` of the scored steps."""
        blanks = batch.targets.new_full((len(outputs), self.scored - NUM_RECALLED), BLANK)
        targets = torch.cat([blanks, batch.targets], 1).long()
        return outputs[:, -self.scored :].float(), targets

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        logits, targets = self.scored_part(outputs, batch)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, tuple[Tensor, int]]:
        logits, targets = self.scored_part(outputs, batch)
        entropy = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
        recalled = outputs[:, -NUM_RECALLED:].argmax(-1) == batch.targets
        return {
            "cross_entropy": (entropy, targets.numel()),
            "recall_accuracy": (recalled.sum(), recalled.numel()),
        }
