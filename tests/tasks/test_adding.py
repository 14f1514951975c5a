import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbench.errors import ConfigError
from seqbench.spec import Features, SequenceSpec, Values
from seqbench.tasks.adding import Adding, marker_places
from seqbench.tasks.task import generator

SPLITS = ("train", "valid", "test")


def adding(length=20, markers="anywhere", train_size=64, eval_size=32, data_seed=0, **build):
    build = {"batch_size": 8, "seed": 0, "data_dir": None} | build
    return Adding(length, markers, train_size, eval_size, data_seed, **build)


@given(
    length=st.integers(2, 40),
    markers=st.sampled_from(["anywhere", "one_per_half"]),
    data_seed=st.integers(0, 2**40),
)
def test_the_target_is_the_sum_of_the_two_marked_numbers(length, markers, data_seed):
    task = adding(length, markers, data_seed=data_seed)
    assert task.spec == SequenceSpec(Features(2), Values(1), "last", length)
    for split, size in zip(SPLITS, (64, 32, 32), strict=True):
        inputs, targets = task.splits[split]
        assert inputs.shape == (size, length, 2)
        assert targets.shape == (size, 1)
        numbers, marks = inputs.unbind(-1)
        assert ((numbers >= 0) & (numbers < 1)).all()
        assert ((marks == 0) | (marks == 1)).all()
        assert (marks.sum(1) == 2).all()
        torch.testing.assert_close((numbers * marks).sum(1, keepdim=True), targets)
        if markers == "one_per_half":
            assert (marks[:, : length // 2].sum(1) == 1).all()


@pytest.mark.parametrize("length", [2, 3, 7])
def test_all_pairs_of_marker_positions_are_equally_likely(length):
    places = marker_places(40_000, length, "anywhere", generator(1)).sort(1).values
    pairs, counts = places.unique(dim=0, return_counts=True)
    expected = 40_000 / (length * (length - 1) / 2)
    assert len(pairs) == length * (length - 1) // 2
    assert ((counts - expected).abs() < 5 * expected**0.5).all()


@pytest.mark.parametrize("length", [2, 5, 8])
def test_with_one_marker_per_half_all_positions_of_a_half_are_equally_likely(length):
    places = marker_places(40_000, length, "one_per_half", generator(1))
    half = length // 2
    for column, low, high in ((0, 0, half), (1, half, length)):
        values, counts = places[:, column].unique(return_counts=True)
        assert values.tolist() == list(range(low, high))
        expected = 40_000 / (high - low)
        assert ((counts - expected).abs() < 5 * expected**0.5).all()


def test_the_baseline_is_the_mse_of_predicting_the_mean():
    """It is that of the test split, within four standard errors of the variance of a sum."""
    task = adding(10, eval_size=20_000)
    ones = lambda batch: torch.ones(len(batch.inputs), 1)  # noqa: E731
    total = sum(task.metrics(ones(b), b)["mse"][0].item() for b in task.eval_batches("test"))
    assert task.baseline == pytest.approx(total / 20_000)
    # For the sum s of two uniform numbers, (s - 1)^2 has mean 1/6, variance 1/15 - 1/36 = 7/180.
    assert task.baseline == pytest.approx(1 / 6, abs=4 * (7 / 180 / 20_000) ** 0.5)


def test_the_exact_sum_has_zero_error_and_solves_the_task():
    task = adding()
    for batch in task.eval_batches("valid"):
        total, count = task.metrics(batch.targets, batch)["mse"]
        assert (total.item(), count) == (task.optimum, 32)
        assert task.loss(batch.targets, batch).item() == 0
    assert task.primary.is_solved(0.0)
    assert not task.primary.is_solved(task.baseline)


def test_the_loss_equals_the_mse_of_the_batch():
    task = adding()
    batch = task.train_batch(0)
    outputs = torch.randn(8, 1)
    total, count = task.metrics(outputs, batch)["mse"]
    torch.testing.assert_close(task.loss(outputs, batch), total / count)
    assert task.loss(outputs.bfloat16(), batch).dtype == torch.float32


@settings(max_examples=20)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=5), st.integers(0, 2**40))
def test_a_training_batch_depends_only_on_the_seed_and_the_step(steps, seed):
    task = adding(seed=seed)
    for step in steps:
        batch, again = task.train_batch(step), adding(seed=seed).train_batch(step)
        assert torch.equal(batch.inputs, again.inputs)
        assert torch.equal(batch.targets, again.targets)


def test_the_seed_changes_the_order_of_the_data_but_not_the_data():
    one, two = adding(seed=1), adding(seed=2)
    assert one.checksums == two.checksums
    for split in SPLITS:
        for a, b in zip(one.splits[split], two.splits[split], strict=True):
            assert torch.equal(a, b)
    assert not torch.equal(one.train_batch(0).inputs, two.train_batch(0).inputs)


def test_the_data_depends_on_the_data_seed_and_on_the_markers():
    tasks = [adding(), adding(data_seed=1), adding(markers="one_per_half")]
    for split in SPLITS:
        assert len({task.checksums[split] for task in tasks}) == 3


def test_the_splits_are_disjoint():
    task = adding()
    rows = torch.cat([task.splits[split][0].flatten(1) for split in SPLITS])
    assert len(rows.unique(dim=0)) == len(rows) == 64 + 32 + 32


def test_eval_size_does_not_change_the_training_data():
    assert adding(eval_size=8).checksums["train"] == adding().checksums["train"]


def test_the_data_is_the_same_on_every_machine():
    assert adding().checksums["test"] == (
        "b91de8075870834eeeff2a4d4c302c1f038a14cde78010fd4400993ebb9b2a20"
    )


@pytest.mark.parametrize("length", [-1, 0, 1])
def test_a_length_below_two_raises(length):
    with pytest.raises(ConfigError, match=f"task.length must be at least 2 .* not {length}"):
        adding(length)
