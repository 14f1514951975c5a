"""The copy memory task (Arjovsky et al. 2016; Bai, Kolter, Koltun 2018, section 4.1).

Ten digits, a long blank, a signal: then the ten digits are to be repeated. Whoever remembers
nothing answers the blanks rightly and guesses the ten digits among eight: 10 ln 8 / (T + 20) nats
over all positions.
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
    """Repeat ten digits after a long wait.

    A sequence of `length + 20` steps: ten digits from 1 to 8, `length - 1` blanks (0), eleven
    signals (9). The target is blank everywhere but at the last ten steps, which repeat the digits.

    Args:
        length: T of the paper: the steps between the digits and their recall.
        input: `scalar` feeds the digit as one real feature, as the released code does and the
            paper's parameter counts imply; `tokens` gives each digit an embedding.
        convention: `all_positions` averages the cross-entropy over all length + 20 steps (the TCN
            paper); `recall_only` over the last ten (as S4's benchmark does): not comparable.
        train_size: training sequences; drawn once, then reused every epoch.
        eval_size: sequences of the validation and of the test split.
        data_seed: fixes all splits.
        shuffle: draw the order of the training sequences anew each epoch.

    Raises:
        ConfigError: a length under 1.
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
        # A tenth of a per cent of what a memoryless predictor scores: all but every digit recalled.
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
        """From digits `(batch, 10)` to the sequence that a model reads."""
        wait = inputs.new_full((len(inputs), self.length - 1), BLANK)
        signal = inputs.new_full((len(inputs), NUM_RECALLED + 1), SIGNAL)
        sequence = torch.cat([inputs, wait, signal], 1)
        return (
            sequence.float()[..., None]
            if isinstance(self.spec.input, Features)
            else sequence.long()
        )

    def scored_part(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits `(batch, scored, 10)` and targets `(batch, scored)` of the steps that count."""
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
