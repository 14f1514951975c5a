import hashlib
import inspect

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqbench.errors import ConfigError
from seqbench.spec import Features, SequenceSpec, Values
from seqbench.tasks.task import Batch, ExampleTask, Primary, Task, checksum, generator, shuffled


def table(size, batch_size=1, seed=0, eval_size=3):
    """Return a task whose example i is the number i."""

    class Numbers(ExampleTask):
        spec = SequenceSpec(Features(1), Values(1), "last", 1)

        def encode(self, inputs):
            return inputs * 10

        loss = metrics = None

    Numbers.__abstractmethods__ = frozenset()
    task = Numbers(batch_size, seed, None)
    train, valid = torch.arange(size), torch.arange(eval_size)
    task.set_splits({"train": (train, train), "valid": (valid, valid), "test": (valid, valid)})
    return task


sizes = st.integers(1, 40).flatmap(lambda size: st.tuples(st.just(size), st.integers(1, size)))


@given(sizes, st.integers(0, 5), st.integers(0, 3))
def test_an_epoch_shows_each_example_once_but_for_what_fills_no_batch(size, seed, epoch):
    size, batch_size = size
    task = table(size, batch_size, seed)
    assert task.steps_per_epoch == size // batch_size
    first = epoch * task.steps_per_epoch
    batches = [task.train_batch(first + i) for i in range(task.steps_per_epoch)]
    shown = torch.cat([batch.targets for batch in batches])
    assert len(shown) == task.steps_per_epoch * batch_size
    assert len(shown.unique()) == len(shown)
    for batch in batches:
        assert torch.equal(batch.inputs, batch.targets * 10)
        assert batch.fresh


@given(st.lists(st.integers(0, 30), min_size=1, max_size=8), st.integers(0, 5))
def test_a_batch_is_a_function_of_seed_and_step_only(steps, seed):
    """A batch depends on no earlier batch and on no global generator."""
    fresh = [table(20, 3, seed).train_batch(step).targets for step in steps]
    used = table(20, 3, seed)
    shuffled.cache_clear()
    for step, expected in zip(steps, fresh, strict=True):
        torch.rand(1)
        assert torch.equal(used.train_batch(step).targets, expected)


def test_the_order_differs_between_epochs_and_between_seeds():
    orders = [
        tuple(table(50, 50, seed).train_batch(epoch).targets.tolist())
        for seed in range(3)
        for epoch in range(3)
    ]
    assert len(set(orders)) == 9


@given(st.integers(1, 600))
def test_evaluation_shows_each_example_once_in_order(size):
    task = table(4, 2, eval_size=size)
    batches = list(task.eval_batches("test"))
    assert torch.equal(torch.cat([batch.targets for batch in batches]), torch.arange(size))
    assert all(torch.equal(batch.inputs, batch.targets * 10) for batch in batches)


def test_fewer_examples_than_a_batch():
    with pytest.raises(ConfigError, match=r"batch_size=9 is more than the task's 8 training"):
        table(8, 9)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_has_examples(batch_size):
    with pytest.raises(ConfigError, match=r"trainer\.batch_size must be at least 1"):
        table(8, batch_size)


@given(st.integers(0, 100), st.integers(0, 2**40), st.integers(0, 100))
def test_shuffled_is_a_permutation_fixed_by_its_key(n, seed, epoch):
    device = torch.device("cpu")
    order = shuffled(n, seed, epoch, device)
    assert torch.equal(order.sort().values, torch.arange(n))
    shuffled.cache_clear()
    assert torch.equal(shuffled(n, seed, epoch, device), order)


def test_the_order_is_the_same_for_everybody():
    assert shuffled(8, 0, 0, torch.device("cpu")).tolist() == [4, 1, 3, 5, 0, 2, 6, 7]


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=3))
def test_a_generator_is_fixed_by_its_key_and_leaves_the_global_one_alone(key):
    before = torch.get_rng_state()
    draws = [torch.rand(4, generator=generator(*key)) for _ in range(2)]
    assert torch.equal(*draws)
    assert torch.equal(torch.get_rng_state(), before)


def test_generators_of_different_keys_differ():
    keys = [(seed, epoch) for seed in (0, 1, 2**40) for epoch in (0, 1)]
    assert len({tuple(torch.rand(4, generator=generator(*key)).tolist()) for key in keys}) == 6


def test_a_checksum_is_of_the_bytes_in_order():
    one, two = torch.tensor([1, 2], dtype=torch.uint8), torch.tensor([3], dtype=torch.uint8)
    assert checksum(one, two) == hashlib.sha256(b"\x01\x02\x03").hexdigest()
    table = torch.arange(6, dtype=torch.uint8).reshape(2, 3)
    assert checksum(table.T) == hashlib.sha256(bytes([0, 3, 1, 4, 2, 5])).hexdigest()


finite = st.floats(-1e6, 1e6)
primaries = st.builds(Primary, st.just("m"), st.sampled_from(["min", "max"]), st.none() | finite)


@given(primaries, finite, finite)
def test_one_of_two_scores_is_better_unless_they_are_equal(primary, a, b):
    assert primary.better(a, b) + primary.better(b, a) == (a != b)
    assert primary.better(a, b) == (a < b if primary.direction == "min" else a > b)


@given(primaries, finite, finite)
def test_what_is_better_than_solved_is_solved(primary, a, b):
    if primary.solved is None:
        assert not primary.is_solved(a)
        return
    assert primary.is_solved(primary.solved)
    if primary.is_solved(a) and primary.better(b, a):
        assert primary.is_solved(b)
    assert primary.is_solved(a) != primary.better(primary.solved, a)


batches = st.builds(
    lambda parts, rows, time, context, scored, fresh: (
        parts,
        Batch(
            torch.arange(parts * rows * time).reshape(-1, time),
            torch.arange(parts * rows * time).reshape(-1, time) + 1,
            torch.arange(parts * rows * time).reshape(-1, time) % 3 == 0 if scored else None,
            fresh,
            min(context, time - 1),
        ),
    ),
    parts=st.integers(1, 4),
    rows=st.integers(1, 3),
    time=st.integers(1, 6),
    context=st.integers(0, 5),
    scored=st.booleans(),
    fresh=st.booleans(),
)


@given(batches)
def test_the_parts_of_a_batch_make_the_whole(parts_and_batch):
    parts, batch = parts_and_batch
    pieces = batch.split(parts)
    assert len(pieces) == parts
    for name in ("inputs", "targets", "scored"):
        whole = getattr(batch, name)
        if whole is None:
            assert all(getattr(piece, name) is None for piece in pieces)
        else:
            assert torch.equal(torch.cat([getattr(piece, name) for piece in pieces]), whole)
    assert all((piece.fresh, piece.context) == (batch.fresh, batch.context) for piece in pieces)


@given(batches)
def test_without_its_context_a_batch_begins_where_the_one_before_ended(parts_and_batch):
    _, batch = parts_and_batch
    short = batch.without_context()
    assert torch.equal(short.inputs, batch.inputs[:, batch.context :])
    assert torch.equal(short.targets, batch.targets[:, batch.context :])
    assert (short.scored is None) == (batch.scored is None)
    if batch.scored is not None:
        assert torch.equal(short.scored, batch.scored[:, batch.context :])
    assert short.context == 0
    assert short.fresh == batch.fresh


@given(batches)
def test_answered_after_its_context_a_batch_is_read_whole(parts_and_batch):
    _, batch = parts_and_batch
    answered = batch.answered_after_context()
    assert torch.equal(answered.inputs, batch.inputs)
    short = batch.without_context()
    assert torch.equal(answered.targets, short.targets)
    if batch.scored is not None:
        assert torch.equal(answered.scored, short.scored)
    assert (answered.context, answered.fresh) == (0, batch.fresh)


def test_targets_of_whole_segments_have_no_context_to_lose():
    batch = Batch(torch.zeros(3, 4, 2), torch.zeros(3), fresh=False)
    assert batch.without_context().targets.shape == (3,)
    assert batch.answered_after_context() is batch


def test_what_a_task_must_give():
    abstract = {"to", "train_batch", "eval_batches", "loss", "metrics"}
    assert Task.__abstractmethods__ == abstract
    assert inspect.isabstract(Task)


@pytest.mark.parametrize(("later", "kept"), [(False, False), (True, True)])
def test_of_equal_scores_the_later_weights_are_kept_where_the_metric_says_so(later, kept):
    metric = Primary("accuracy", "max", prefers_later=later)
    assert metric.replaces(0.9, 0.9) is kept
    assert metric.replaces(0.9, None)
    assert metric.replaces(0.91, 0.9)
    assert not metric.replaces(0.89, 0.9)
