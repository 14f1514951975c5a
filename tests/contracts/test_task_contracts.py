"""Packaged tasks keep the contracts; for each contract, a faulty task breaks it."""

import math

import pytest
import torch

from seqbench.config.build import build
from seqbench.config.choices import read_choice
from seqbench.contracts.task import check_task
from seqbench.errors import ConfigError, DataError
from seqbench.spec import Classes, Features, SequenceSpec, Tokens, Values
from seqbench.tasks.adding import Adding
from seqbench.tasks.task import Batch

SMALL = {"length": 12, "markers": "anywhere", "train_size": 96, "eval_size": 40, "data_seed": 0}


def small(task=Adding):
    return lambda seed: task(**SMALL, batch_size=8, seed=seed, data_dir=None)


def broken(results):
    """Return the messages of the broken contracts, by name."""
    return {result.name: result.message for result in results if not result.passed}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("adding", {"length": 20, "train_size": 200, "eval_size": 50}),
        ("adding", {"length": 20, "train_size": 200, "eval_size": 50, "markers": "one_per_half"}),
        ("copy", {"length": 5, "train_size": 200, "eval_size": 50}),
        ("copy", {"length": 5, "train_size": 200, "eval_size": 50, "input": "tokens"}),
        ("char_markov", {"train_size": 5000, "eval_size": 1000, "length": 40, "context": 10}),
    ],
)
def test_our_tasks_hold_every_contract(name, values):
    node = read_choice("task", name) | values
    results = list(
        check_task(
            lambda seed: build("task", {"task": node}, batch_size=8, seed=seed, data_dir=None)
        )
    )
    assert len(results) == 8
    assert broken(results) == {}


def test_tasks_on_real_data_hold_every_contract(real_data):
    for name, values in {
        "smnist": {"train_size": 2000, "eval_size": 500},
        "char_shakespeare": {"train_size": 50_000, "eval_size": 5000},
    }.items():
        node = read_choice("task", name) | values
        results = check_task(
            lambda seed: build(
                "task",
                {"task": node},  # noqa: B023
                batch_size=8,
                seed=seed,
                data_dir=str(real_data),
            )
        )
        assert broken(results) == {}, name


class Unmeasured(Adding):
    def __init__(self, *args, **build):
        super().__init__(*args, **build)
        self.baseline = math.nan


class WorseThanBaseline(Adding):
    optimum = 1.0


class OtherMetric(Adding):
    def metrics(self, outputs, batch):
        return {"mean squared": super().metrics(outputs, batch)["mse"]}


class OtherWidth(Adding):
    def encode(self, inputs):
        return inputs[..., :1]


class OtherLength(Adding):
    def encode(self, inputs):
        return inputs[:, 1:]


class WrongToken(Adding):
    def __init__(self, **values):
        super().__init__(**values)
        self.spec = SequenceSpec(Tokens(10), Classes(1), "last", 12)

    def encode(self, inputs):
        return (inputs[..., 0] * 11).round().long()


class FewTargets(Adding):
    def eval_batches(self, split):
        for batch in super().eval_batches(split):
            yield Batch(batch.inputs, batch.targets[1:])


class NoSplit(Adding):
    def eval_batches(self, split):
        return iter([])


class MidText(Adding):
    def eval_batches(self, split):
        for batch in super().eval_batches(split):
            yield Batch(batch.inputs, batch.targets, fresh=False)


class ScoredContext(Adding):
    def __init__(self, **values):
        super().__init__(**values)
        self.spec = SequenceSpec(Features(2), Values(1), "every", 12)

    def eval_batches(self, split):
        for i, batch in enumerate(super().eval_batches(split)):
            yield Batch(batch.inputs, batch.targets, fresh=i == 0, context=3)

    def loss(self, outputs, batch):
        return outputs.square().mean()


class ConstantLoss(Adding):
    def loss(self, outputs, batch):
        return 0 * outputs.sum()


class LossPerSequence(Adding):
    def loss(self, outputs, batch):
        return (outputs - batch.targets).square().flatten()


class Stateful(Adding):
    calls = 0

    def train_batch(self, step):
        self.calls += 1
        return super().train_batch(self.calls)


class GlobalRandom(Adding):
    def train_batch(self, step):
        chosen = torch.randint(96, (8,))
        inputs, targets = self.splits["train"]
        return Batch(inputs[chosen], targets[chosen])


class OneBatch(Adding):
    def train_batch(self, step):
        return super().train_batch(0)


class SeededSplits(Adding):
    def __init__(self, *, data_seed, seed, **values):
        super().__init__(**values, data_seed=seed, seed=seed)


class ShuffledEvaluation(Adding):
    def eval_batches(self, split):
        inputs, targets = self.splits[split]
        order = torch.randperm(len(inputs))
        yield Batch(inputs[order], targets[order])


class Leaky(Adding):
    def __init__(self, **values):
        super().__init__(**values)
        inputs, targets = self.splits["train"]
        self.splits["test"] = inputs[10:20], targets[10:20]


@pytest.mark.parametrize(
    ("task", "contract", "message"),
    [
        (Unmeasured, "attributes are valid", "baseline is nan"),
        (WorseThanBaseline, "attributes are valid", "optimum 1.0 is no better than baseline"),
        (OtherMetric, "loss and metrics", "primary is mse, but metrics are mean squared"),
        (OtherWidth, "batches match", "(8, 12, 1) float32, not (batch, time, 2)"),
        (OtherLength, "batches match", "training has 11 steps, not 12"),
        (WrongToken, "batches match", "tokens outside 0 to 9"),
        (FewTargets, "batches match", "40 inputs and 39 targets"),
        (NoSplit, "batches match", "valid has no batches"),
        (MidText, "batches match", "the first batch of valid is not marked fresh"),
        (ScoredContext, "batches match", "valid scores its context"),
        (ConstantLoss, "loss and metrics", "no gradient"),
        (LossPerSequence, "loss and metrics", "the loss of random outputs is (8,)"),
        (Stateful, "a batch depends", "asked for twice gives two batches"),
        (GlobalRandom, "a batch depends", "asked for twice gives two batches"),
        (OneBatch, "a batch depends", "every step has the same batch"),
        (SeededSplits, "validation and test", "valid is not the same with another seed"),
        (ShuffledEvaluation, "validation and test", "valid is not the same read twice"),
        (Leaky, "splits are disjoint", "10 of the 10 sequences of test are in train too"),
    ],
)
def test_a_broken_task_is_told_what_it_breaks(task, contract, message):
    found = broken(check_task(small(task)))
    (name,) = [name for name in found if name.startswith(contract)]
    assert message in found[name]


def test_a_task_that_refuses_or_lacks_its_data_says_so_itself():
    def lacks(seed):
        raise DataError("fetch it first")

    with pytest.raises(DataError, match="fetch it first"):
        list(check_task(lacks))
    with pytest.raises(ConfigError, match=r"task\.length"):
        list(
            check_task(
                lambda seed: Adding(**SMALL | {"length": 1}, batch_size=8, seed=seed, data_dir=None)
            )
        )
