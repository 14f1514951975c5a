from functools import cache
from unittest.mock import patch

import numpy as np
import pytest
import torch

from seqbench import tasks
from seqbench.datasets.mnist import Mnist, load_mnist
from seqbench.errors import ConfigError
from seqbench.spec import Classes, Features, SequenceSpec
from seqbench.tasks.mnist import SequentialMnist
from seqbench.tasks.task import checksum

PERMUTED = 92916


@pytest.fixture(scope="module")
def mnist(real_data):
    def made(permutation_seed=None, train_size=None, eval_size=None, **build):
        build = {"batch_size": 50, "seed": 0, "data_dir": str(real_data)} | build
        return SequentialMnist(permutation_seed, train_size, eval_size, **build)

    # Unpacking and hashing take a second; once will do.
    with patch.object(tasks.mnist, "load_mnist", cache(load_mnist)):
        yield made


@pytest.fixture(scope="module")
def sequential(mnist):
    return mnist()


@pytest.fixture(scope="module")
def permuted(mnist):
    return mnist(PERMUTED)


def test_shapes(sequential):
    assert sequential.spec == SequenceSpec(Features(1), Classes(10), "last", 784)
    assert sequential.steps_per_epoch == 1100
    batch = sequential.train_batch(0)
    assert (batch.inputs.shape, batch.inputs.dtype) == ((50, 784, 1), torch.float32)
    assert (batch.targets.shape, batch.targets.dtype) == ((50,), torch.int64)
    sizes = {split: len(labels) for split, (_, labels) in sequential.splits.items()}
    assert sizes == {"train": 55_000, "valid": 5_000, "test": 10_000}


def test_pixels_are_normalised(sequential):
    counts = torch.bincount(sequential.splits["train"][0].flatten(), minlength=256).double()
    values = sequential.encode(torch.arange(256, dtype=torch.uint8)[None])[0, :, 0].double()
    mean = (values * counts).sum() / counts.sum()
    variance = ((values - mean).square() * counts).sum() / counts.sum()
    assert abs(mean.item()) < 1e-3
    assert abs(variance.item() - 1) < 1e-2


def test_every_class_is_there(sequential):
    for _, labels in sequential.splits.values():
        assert labels.unique().tolist() == list(range(10))


def test_valid_is_the_end_of_the_training_file_and_disjoint_from_train(sequential):
    train, valid, test = (images for images, _ in sequential.splits.values())
    digests = [{row.numpy().tobytes() for row in images} for images in (train, valid, test)]
    assert len(digests[1]) == 5_000
    assert not digests[0] & digests[1]
    assert not (digests[0] | digests[1]) & digests[2]


def test_the_splits_of_images_that_need_no_download():
    images = np.random.default_rng(0).integers(0, 256, (60, 28, 28), np.uint8)
    labels = np.arange(60, dtype=np.uint8) % 10
    made_up = Mnist(images[:40], labels[:40], images[40:], labels[40:], {})
    build = {"batch_size": 4, "seed": 0, "data_dir": None}
    with patch.object(tasks.mnist, "load_mnist", return_value=made_up):
        task = SequentialMnist(None, None, None, valid_size=10, **build)
    for split, part in (("train", slice(30)), ("valid", slice(30, 40)), ("test", slice(40, 60))):
        found, classes = task.splits[split]
        np.testing.assert_array_equal(found, images[part].reshape(-1, 784))
        np.testing.assert_array_equal(classes, labels[part])


def test_pixels_are_read_row_by_row(sequential):
    """Strokes are wider than a pixel, so neighbours in a row and in a column are alike."""
    images = sequential.splits["test"][0].double()
    image = (images - images.mean()).reshape(-1, 28, 28)
    for one, other in ((image[:, :, 1:], image[:, :, :-1]), (image[:, 1:], image[:, :-1])):
        assert (one * other).mean() > 0.5 * image.square().mean()


def pixels(task):
    """Return each pixel over all images of all splits, in the order of reading."""
    images = torch.cat([images for images, _ in task.splits.values()])
    return [row.numpy().tobytes() for row in images.T.contiguous()]


def test_permuted_pixels_are_the_same_pixels_in_one_order_for_all(sequential, permuted):
    plain, mixed = pixels(sequential), pixels(permuted)
    assert mixed != plain
    assert sorted(mixed) == sorted(plain)
    for split, (_, labels) in sequential.splits.items():
        assert torch.equal(labels, permuted.splits[split][1])


def test_the_permutation_is_the_same_for_everybody(permuted):
    images = permuted.splits["test"][0]
    assert checksum(images) == ("0b54c35f9b5488f6625699d2ecefa08752b6c6d60b8e85ef70ea7ad96649d67d")


def test_another_seed_is_another_order_and_the_runs_seed_is_none(mnist):
    one, two = (mnist(seed, 100, 50).splits["test"][0] for seed in (1, 2))
    assert not torch.equal(one, two)
    again = mnist(1, 100, 50, seed=9)
    assert torch.equal(again.splits["test"][0], one)
    assert not torch.equal(again.train_batch(0).inputs, mnist(1, 100, 50).train_batch(0).inputs)


def test_a_smaller_part_is_the_first_of_each(mnist, sequential):
    small = mnist(None, 100, 50)
    for split, size in (("train", 100), ("valid", 50), ("test", 50)):
        for part, whole in zip(small.splits[split], sequential.splits[split], strict=True):
            assert torch.equal(part, whole[:size])
    assert small.checksums == sequential.checksums
    assert len(small.checksums) == 4


@pytest.mark.parametrize("size", [0, -1, 55_001, 60_000])
def test_what_is_kept_for_validation_is_not_trained_on(mnist, size):
    with pytest.raises(ConfigError, match=rf"train_size must be 1 to 55000, not {size}"):
        mnist(None, size)


def test_metrics(mnist):
    task = mnist(None, 100, 50)
    (batch,) = task.eval_batches("test")
    right = 30.0 * torch.nn.functional.one_hot(batch.targets, 10)
    scored = task.metrics(right, batch)
    assert (scored["accuracy"][0].item(), scored["accuracy"][1]) == (50, 50)
    assert scored["cross_entropy"][0].item() == pytest.approx(0, abs=1e-6)
    outputs = torch.randn(50, 10)
    total, count = task.metrics(outputs, batch)["cross_entropy"]
    torch.testing.assert_close(task.loss(outputs, batch), total / count)
    wrong = right.roll(1, -1)
    assert task.metrics(wrong, batch)["accuracy"][0].item() == 0


def test_the_baseline_is_the_accuracy_of_always_guessing_a_one(sequential):
    """1 is the most frequent digit of the training images, and 1,135 test images show it."""
    assert sequential.baseline == 0.1135
