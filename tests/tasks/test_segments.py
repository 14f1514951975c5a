import math
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqbench.errors import ConfigError
from seqbench.tasks import segments
from seqbench.tasks.segments import SegmentTask, unigram_nats
from seqbench.tasks.vocabulary import Vocabulary

PLACES = Vocabulary("".join(map(chr, range(0x4E00, 0x4E00 + 2000))))


def places(train, test, length, context, batch_size=1, seed=0, *, shuffle=False):
    """Return a task whose token at position t is t, so that each target is its position."""
    text = np.arange(2000, dtype=PLACES.dtype)
    texts = {"train": text[:train], "valid": text[:2], "test": text[:test]}
    build = {"batch_size": batch_size, "seed": seed, "data_dir": None}
    return SegmentTask(texts, PLACES, length, context, shuffle, **build)


@st.composite
def windows(draw):
    length = draw(st.integers(1, 30))
    return length, draw(st.integers(0, length - 1))


@given(windows(), st.integers(2, 400), st.integers(1, 9))
def test_evaluation_scores_every_prediction_once(window, size, rows):
    length, context = window
    task = places(2 * length + 1, size, length, context)
    with patch.object(segments, "EVAL_ROWS", rows):
        batches = list(task.eval_batches("test"))
    assert len(batches[0].inputs) <= rows
    for batch in batches:
        assert batch.inputs.dtype == batch.targets.dtype == torch.int64
        assert batch.inputs.shape == batch.targets.shape == batch.scored.shape
        assert batch.scored.any()
        assert torch.equal(batch.targets[batch.scored], batch.inputs[batch.scored] + 1)
    assert torch.stack([batch.scored.any(1) for batch in batches]).any(0).all()
    in_order = torch.stack([b.targets for b in batches], 1)[
        torch.stack([b.scored for b in batches], 1)
    ]
    assert in_order.tolist() == list(range(1, size))


@given(windows(), st.integers(2, 400), st.integers(1, 9))
def test_each_segment_of_a_row_continues_the_previous_one(window, size, rows):
    length, context = window
    task = places(2 * length + 1, size, length, context)
    with patch.object(segments, "EVAL_ROWS", rows):
        batches = list(task.eval_batches("test"))
    assert [batch.fresh for batch in batches] == [True] + [False] * (len(batches) - 1)
    read = torch.cat([batch.without_context().inputs for batch in batches], 1)
    expected = read[:, :1] + torch.arange(read.shape[1])
    assert torch.equal(read, expected.clamp(max=size - 1))
    # The context, which a model without a carried state needs, is not scored again.
    for batch in batches[1:]:
        assert batch.context == context
        assert not batch.scored[:, :context].any()
    assert not batches[0].scored[1:, :context].any()


@given(windows(), st.integers(1, 5), st.integers(0, 300), st.integers(0, 9), st.integers(0, 9))
def test_training_batches_are_full_and_each_continues_the_previous_one(
    window, rows, extra, seed, epoch
):
    length, context = window
    stride = length - context
    size = rows * stride + length + extra
    task = places(size, 2, length, context, rows, seed)
    steps = range(epoch * task.steps_per_epoch, (epoch + 1) * task.steps_per_epoch)
    batches = [task.train_batch(step) for step in steps]
    assert [batch.fresh for batch in batches] == [True] + [False] * (len(batches) - 1)
    scored = []
    for batch in batches:
        assert batch.inputs.shape == (rows, length)
        assert torch.equal(batch.targets, batch.inputs + 1)
        assert batch.scored[:, context:].all()
        scored += batch.targets[batch.scored].tolist()
    assert len(set(scored)) == len(scored) == rows * stride * len(batches) + context
    assert max(scored) < size
    read = torch.cat([batch.without_context().inputs for batch in batches], 1)
    assert torch.equal(read, read[:, :1] + torch.arange(read.shape[1]))


@given(windows(), st.integers(1, 5), st.integers(0, 300), st.integers(0, 9), st.integers(0, 9))
def test_shuffled_windows_are_those_of_the_epoch_each_read_once(window, rows, extra, seed, epoch):
    length, context = window
    size = rows * (length - context) + length + extra
    read = []
    for shuffle in (False, True):
        task = places(size, 2, length, context, rows, seed, shuffle=shuffle)
        steps = range(epoch * task.steps_per_epoch, (epoch + 1) * task.steps_per_epoch)
        batches = [task.train_batch(step) for step in steps]
        read.append(sorted(int(row[0]) for batch in batches for row in batch.inputs))
    assert read[0] == read[1]
    for batch in batches:
        assert batch.fresh
        assert batch.context == context
        assert torch.equal(batch.targets, batch.inputs + 1)
        assert batch.scored[:, context:].all()
        assert not batch.scored[:, :context].any()


def test_the_order_of_shuffled_windows_depends_on_the_epoch_and_the_seed():
    def order(epoch, seed):
        task = places(2000, 2, 20, 5, 4, seed, shuffle=True)
        steps = range(epoch * task.steps_per_epoch, (epoch + 1) * task.steps_per_epoch)
        firsts = torch.cat([task.train_batch(step).inputs[:, 0] for step in steps])
        return ((firsts - firsts.min()) // 15).tolist()

    orders = [order(0, 0), order(1, 0), order(0, 1)]
    assert all(sorted(one) == [*range(len(one))] != one for one in orders)
    assert len(set(map(tuple, orders))) == 3


def test_a_training_batch_depends_only_on_the_step_and_the_seed():
    task, other = (places(500, 2, 20, 5, 4) for _ in range(2))
    for step in (17, 3, 250, 3):
        assert torch.equal(task.train_batch(step).inputs, other.train_batch(step).inputs)
    assert not torch.equal(
        task.train_batch(3).inputs, places(500, 2, 20, 5, 4, seed=1).train_batch(3).inputs
    )


def test_windows_shift_between_epochs_and_cover_every_character():
    task = places(510, 2, 20, 5, 4)
    epochs = [n * task.steps_per_epoch for n in range(300)]
    starts = {int(task.train_batch(step).inputs[0, 0]) for step in epochs}
    ends = {int(task.train_batch(step - 1).targets[-1, -1]) for step in epochs[1:]}
    # The 8 batches of an epoch cover 4 * 8 * 15 + 5 = 485 of 509 predictions: 25 possible starts.
    assert starts == set(range(25))
    assert max(ends) == 509


def test_the_shortest_training_text_gives_one_step_and_a_shorter_one_raises():
    assert places(4 * 15 + 20, 2, 20, 5, 4).steps_per_epoch == 1
    with pytest.raises(ConfigError, match=r"has 79 characters.* takes 80: lower") as error:
        places(4 * 15 + 19, 2, 20, 5, 4)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("length", "context"), [(4, 4), (4, 5), (4, -1), (0, 0)])
def test_a_context_outside_the_window_raises(length, context):
    with pytest.raises(ConfigError, match=r"task\.context="):
        places(100, 2, length, context)


def test_an_evaluation_text_of_one_character_raises():
    with pytest.raises(ConfigError, match="test text has 1 characters"):
        places(100, 1, 4, 0)


def test_the_baseline_is_the_score_of_the_token_frequencies_of_train():
    text = np.repeat(np.array([5, 0, 2, 0, 5], PLACES.dtype), 60)
    texts = {"train": text, "valid": text, "test": text[:200]}
    task = SegmentTask(texts, PLACES, 12, 3, batch_size=1, seed=0, data_dir=None)
    counts = torch.bincount(task.texts["train"], minlength=task.spec.output_dim)
    total, terms = 0.0, 0
    for batch in task.eval_batches("test"):
        outputs = (counts + 0.5).log().expand(*batch.inputs.shape, -1)
        bits, count = task.metrics(outputs, batch)["bpc"]
        assert count == int(batch.scored.sum())
        assert float(task.loss(outputs, batch)) == pytest.approx(float(bits) / count * math.log(2))
        total, terms = total + float(bits), terms + count
    assert total / terms == pytest.approx(task.baseline, rel=1e-6)


def test_unigram_frequencies_of_a_small_text():
    nats = unigram_nats(torch.tensor([0, 0, 1]), torch.tensor([9, 0, 1]), 2)
    assert nats == pytest.approx(-(math.log(2.5 / 4) + math.log(1.5 / 4)) / 2)


def test_loss_and_metrics_ignore_positions_that_are_not_scored():
    task = places(200, 30, 12, 3)
    *_, batch = task.eval_batches("test")
    assert not batch.scored[:, 3:].all()  # the end of the last window is padding
    right = 50 * torch.nn.functional.one_hot(batch.targets, task.spec.output_dim).float()
    wrong = torch.where(batch.scored[..., None], right, -right)
    assert float(task.loss(wrong, batch)) == pytest.approx(0, abs=1e-6)
    hits, count = task.metrics(wrong, batch)["accuracy"]
    assert int(hits) == count == int(batch.scored.sum())
    assert float(task.loss(-right, batch)) > 10


def test_the_loss_is_computed_in_float32():
    task = places(200, 30, 12, 3)
    batch = task.train_batch(0)
    outputs = torch.randn(*batch.inputs.shape, task.spec.output_dim, dtype=torch.bfloat16)
    loss = task.loss(outputs, batch)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, task.loss(outputs.float(), batch))


def test_batches_without_context_score_every_prediction_once():
    task = places(200, 150, 12, 3)
    batches = list(task.eval_batches("test"))
    count = 0
    for batch in map(segments.Batch.without_context, batches):
        outputs = torch.zeros(*batch.inputs.shape, task.spec.output_dim)
        count += task.metrics(outputs, batch)["bpc"][1]
    assert count == 149
