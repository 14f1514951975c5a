"""Sequential and permuted MNIST (Le, Jaitly, Hinton 2015; Bai, Kolter, Koltun 2018, section 4.1).

A model reads the 784 pixels of an image one by one and predicts the digit after the last. In
permuted MNIST all images have their pixels in the same fixed random order. The baseline is a model
without memory: it predicts the most frequent digit of the training images.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from seqbench.datasets.mnist import load_mnist
from seqbench.errors import ConfigError
from seqbench.spec import Classes, Features, SequenceSpec
from seqbench.tasks.task import Batch, ExampleTask, Primary, Split

# Of the 60,000 training images, for pixels scaled to [0, 1].
PIXEL_MEAN, PIXEL_STD = 0.1307, 0.3081


class SequentialMnist(ExampleTask):
    """Sequential MNIST: classify a digit from its pixels, read one at a time.

    Inputs are `(batch, 784, 1)`, normalised; targets are `(batch,)`, classes 0 to 9.

    Args:
        permutation_seed: seed of the pixel order; `None`: row by row.
        train_size: number of leading training images used; `None`: all that are not held out for
            validation (55,000 by default).
        eval_size: number of leading images used of the validation and of the test split; `None`:
            all (5,000 by default, and 10,000).
        valid_size: number of last training images held out for validation; 0: there is no
            validation split.
        shuffle: shuffle the training images every epoch.

    Raises:
        ConfigError: if a size is out of range.
        DataError: if MNIST cannot be downloaded or is malformed.
    """

    primary = Primary("accuracy", "max")
    spec = SequenceSpec(Features(1), Classes(10), "last", 784)

    def __init__(
        self,
        permutation_seed: int | None,
        train_size: int | None,
        eval_size: int | None,
        valid_size: int = 5000,
        shuffle: bool = True,
        *,
        batch_size: int,
        seed: int,
        data_dir: str | None,
    ) -> None:
        super().__init__(batch_size, seed, data_dir)
        self.shuffle = shuffle
        mnist = load_mnist(data_dir)
        self.checksums.update(mnist.checksums)
        if not 0 <= valid_size < len(mnist.train_labels):
            most = len(mnist.train_labels) - 1
            raise ConfigError(f"task.valid_size must be 0 to {most}, not {valid_size}")
        available = len(mnist.train_labels) - valid_size
        train_size = available if train_size is None else train_size
        if not 0 < train_size <= available:
            raise ConfigError(f"task.train_size must be 1 to {available}, not {train_size}")
        if eval_size is not None and eval_size < 1:
            raise ConfigError(f"task.eval_size must be at least 1, not {eval_size}")
        order = np.arange(784)
        if permutation_seed is not None:
            # RandomState's streams never change, so every numpy version gives the same order.
            order = np.random.RandomState(permutation_seed).permutation(784)

        def part(images: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
            pixels = np.ascontiguousarray(images.reshape(-1, 784)[:, order])
            return torch.from_numpy(pixels), torch.from_numpy(labels.astype(np.int64))

        images, labels = mnist.train_images, mnist.train_labels
        splits: dict[Split, tuple[Tensor, Tensor]] = {
            "train": part(images[:train_size], labels[:train_size]),
            "valid": part(images[available:][:eval_size], labels[available:][:eval_size]),
            "test": part(mnist.test_images[:eval_size], mnist.test_labels[:eval_size]),
        }
        if not valid_size:
            del splits["valid"]
        self.set_splits(splits)
        most_frequent = splits["train"][1].bincount().argmax()
        self.baseline = float((splits["test"][1] == most_frequent).double().mean())

    def encode(self, inputs: Tensor) -> Tensor:
        """Convert bytes `(batch, 784)` to normalised features `(batch, 784, 1)`."""
        return ((inputs.float() / 255 - PIXEL_MEAN) / PIXEL_STD)[..., None]

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(outputs.float(), batch.targets)

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, tuple[Tensor, int]]:
        correct = (outputs.argmax(-1) == batch.targets).sum()
        entropy = F.cross_entropy(outputs.float(), batch.targets, reduction="sum")
        return {"accuracy": (correct, len(outputs)), "cross_entropy": (entropy, len(outputs))}
