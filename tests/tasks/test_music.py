"""Music: baselines, padding, batches of an epoch, and the likelihood of a known model."""

import math

import pytest
import torch

from seqbench.config.build import build
from seqbench.config.choices import read_choice
from seqbench.contracts.task import check_task
from seqbench.tasks.music import naive_scores

pytest.importorskip("scipy")

# Computed from the data with other code: key frequencies, and each key given the step before.
BASELINES = {
    "jsb": (11.09, 10.49),
    "nottingham": (10.26, 5.15),
    "musedata": (11.52, 8.56),
    "piano": (11.05, 8.27),
}


def music(real_data, name="jsb", **values):
    node = read_choice("task", name) | values
    return build("task", {"task": node}, batch_size=8, seed=0, data_dir=str(real_data))


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_of_the_real_data(real_data, name):
    task = music(real_data, name)
    found = task.naive["key frequencies"], task.naive["persistence"]
    assert found == pytest.approx(BASELINES[name], abs=0.01)
    assert task.baseline == min(found)


def test_contracts_hold(real_data):
    def made(**options):
        return build(
            "task",
            {"task": read_choice("task", "jsb") | {"train_size": 24, "eval_size": 9}},
            **options,
        )

    check_task(made)


def test_each_training_sequence_is_in_one_batch_of_an_epoch_beside_others_of_like_length(real_data):
    task = music(real_data)
    seen, padded, steps = [], 0, 0
    for step in range(task.steps_per_epoch):
        batch = task.train_batch(step)
        for roll, scored in zip(batch.inputs, batch.scored, strict=True):
            seen.append(roll[scored].numpy().tobytes())
        padded += int((~batch.scored).sum())
        steps += batch.scored.numel()
    assert len(seen) == 229
    train = task.splits["train"]
    rolls = train.steps.split(train.lengths.tolist())
    assert sorted(seen) == sorted(roll[:-1].numpy().tobytes() for roll in rolls)
    assert padded < 0.2 * steps


def test_padding_is_not_scored_and_the_target_is_the_next_step(real_data):
    task = music(real_data)
    batch = next(b for b in map(task.train_batch, range(29)) if not b.scored.all())
    inside = batch.scored[:, 1:, None]
    assert torch.equal(batch.inputs[:, 1:] * inside, batch.targets[:, :-1] * inside)
    outputs = torch.randn(batch.targets.shape)
    total, count = task.metrics(outputs, batch)["nll"]
    assert float(task.loss(outputs, batch)) == pytest.approx(float(total) / count)
    outputs[~batch.scored] = 1e6
    assert float(task.metrics(outputs, batch)["nll"][0]) == pytest.approx(float(total))


def test_even_odds_cost_88_bits_a_step(real_data):
    task = music(real_data)
    for batch in task.eval_batches("test"):
        total, count = task.metrics(torch.zeros(batch.targets.shape), batch)["nll"]
        assert float(total) / count == pytest.approx(88 * math.log(2), rel=1e-5)


def test_naive_scores_of_a_key_that_is_held():
    roll = torch.zeros(9, 88, dtype=torch.uint8).numpy()
    held = roll.copy()
    held[:, 40] = 1
    found = naive_scores([held, roll], [held, roll])
    # Of 18 steps with half an observation added; the other keys are silent in all of them.
    silent = 87 * -math.log(18.5 / 19)
    assert found["key frequencies"] == pytest.approx(silent + math.log(2), rel=1e-3)
    assert found["persistence"] < found["key frequencies"] - 0.3
