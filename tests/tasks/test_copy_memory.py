import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from seqbench.errors import ConfigError
from seqbench.spec import Classes, Features, Tokens
from seqbench.tasks.copy_memory import CopyMemory

SPLITS = ("train", "valid", "test")
SURE = 100.0  # a logit that leaves the others no probability


def copy(length=30, input="tokens", convention="all_positions", data_seed=0, **build):
    build = {"batch_size": 8, "seed": 0, "data_dir": None} | build
    return CopyMemory(length, input, convention, 64, 32, data_seed, **build)


def scores(task, predictor):
    """Return the test metrics of a predictor, from `(batch, time)` symbols to logits."""
    sums = {}
    for batch in task.eval_batches("test"):
        for name, (value, count) in task.metrics(predictor(batch), batch).items():
            total, number = sums.get(name, (0.0, 0))
            sums[name] = total + value.double().item(), number + count
    return {name: total / number for name, (total, number) in sums.items()}


def answers(batch):
    """Return the target at each step: blanks, then the ten digits."""
    blanks = torch.zeros(len(batch.inputs), batch.inputs.shape[1] - 10, dtype=torch.int64)
    return torch.cat([blanks, batch.targets.long()], 1)


def perfect(batch):
    return SURE * F.one_hot(answers(batch), 10).float()


def memoryless(batch):
    """Predict blanks, then each of the eight digits with equal probability."""
    logits = torch.full((*batch.inputs.shape[:2], 10), -SURE)
    logits[:, :-10, 0] = SURE
    logits[:, -10:, 1:9] = SURE
    return logits


@given(length=st.integers(1, 60), data_seed=st.integers(0, 2**40))
def test_the_sequence_is_the_papers(length, data_seed):
    task = copy(length, data_seed=data_seed)
    assert task.spec.length == length + 20
    assert task.spec.input == Tokens(10)
    assert task.spec.target == Classes(10)
    assert task.spec.readout == "every"
    for batch in (task.train_batch(0), *task.eval_batches("valid"), *task.eval_batches("test")):
        assert batch.inputs.dtype == torch.int64
        assert batch.inputs.shape[1] == length + 20
        digits, wait, signal = batch.inputs.split([10, length - 1, 11], 1)
        assert ((digits >= 1) & (digits <= 8)).all()
        assert (wait == 0).all()
        assert (signal == 9).all()
        assert torch.equal(digits, batch.targets.long())


def test_as_a_scalar_the_digit_is_one_real_feature():
    tokens, scalar = copy(), copy(input="scalar")
    assert scalar.spec.input == Features(1)
    a, b = tokens.train_batch(3), scalar.train_batch(3)
    assert b.inputs.dtype == torch.float32
    assert b.inputs.shape == (8, 50, 1)
    assert torch.equal(a.inputs, b.inputs[..., 0].long())


@pytest.mark.parametrize(("length", "baseline"), [(500, 0.03999), (1000, 0.02039), (2000, 0.01029)])
def test_the_baseline_is_the_published_one(length, baseline):
    assert copy(length).baseline == pytest.approx(baseline, abs=1e-5)


@pytest.mark.parametrize("convention", ["all_positions", "recall_only"])
def test_a_predictor_without_memory_scores_the_baseline(convention):
    task = copy(convention=convention)
    scored = scores(task, memoryless)
    assert scored["cross_entropy"] == pytest.approx(task.baseline, rel=1e-6)
    assert task.notes["baseline_recall_accuracy"] == 1 / 8
    assert scored["recall_accuracy"] == pytest.approx(1 / 8, abs=0.05)
    assert not task.primary.is_solved(scored["cross_entropy"])


@pytest.mark.parametrize("convention", ["all_positions", "recall_only"])
def test_a_perfect_predictor_scores_nothing(convention):
    task = copy(convention=convention)
    assert scores(task, perfect) == {"cross_entropy": 0.0, "recall_accuracy": 1.0}
    assert task.optimum == 0.0
    assert task.primary.is_solved(0.0)


def test_recall_only_looks_at_the_last_ten_steps_only():
    task, whole = copy(convention="recall_only"), copy()
    assert task.baseline == pytest.approx(math.log(8))
    assert whole.baseline == pytest.approx(math.log(8) * 10 / 50)

    def careless(batch):
        logits = perfect(batch)
        logits[:, :-10] = torch.randn(logits[:, :-10].shape)
        return logits

    assert scores(task, careless)["cross_entropy"] == 0
    assert scores(whole, careless)["cross_entropy"] > 1


@pytest.mark.parametrize("convention", ["all_positions", "recall_only"])
def test_the_loss_is_the_metric_of_a_batch(convention):
    task = copy(convention=convention)
    batch = task.train_batch(0)
    outputs = torch.randn(8, 50, 10)
    total, count = task.metrics(outputs, batch)["cross_entropy"]
    torch.testing.assert_close(task.loss(outputs, batch), total / count)
    scored = 50 if convention == "all_positions" else 10
    expected = F.cross_entropy(
        outputs[:, -scored:].flatten(0, 1), answers(batch)[:, -scored:].flatten()
    )
    torch.testing.assert_close(task.loss(outputs, batch), expected)


def test_one_digit_forgotten_is_seen():
    def forgetful(batch):
        logits = perfect(batch)
        logits[:, -3] = SURE * F.one_hot(answers(batch)[:, -3] % 8 + 1, 10)
        return logits

    assert scores(copy(), forgetful)["recall_accuracy"] == pytest.approx(0.9)


def test_the_data_does_not_depend_on_the_seed_but_its_order_does():
    one, two = copy(seed=1), copy(seed=2)
    assert one.checksums == two.checksums
    assert not torch.equal(one.train_batch(0).inputs, two.train_batch(0).inputs)
    assert torch.equal(one.train_batch(5).inputs, copy(seed=1).train_batch(5).inputs)


def test_the_digits_are_the_same_at_every_length_and_in_every_form():
    assert copy().checksums == copy(length=77, input="scalar").checksums
    assert copy().checksums != copy(data_seed=1).checksums


def test_the_splits_are_disjoint():
    task = copy()
    rows = torch.cat([task.splits[split][0] for split in SPLITS])
    assert len(rows.unique(dim=0)) == len(rows) == 64 + 32 + 32


def test_the_digits_are_the_same_for_everybody():
    assert copy().checksums["test"] == (
        "39a5086d9d85c2537d9380ce3e9aea54c2ec2b5ff42e92996e5d57b041500eee"
    )


@pytest.mark.parametrize("length", [0, -5])
def test_there_must_be_a_wait(length):
    with pytest.raises(ConfigError, match=f"task.length must be at least 1, not {length}"):
        copy(length)
