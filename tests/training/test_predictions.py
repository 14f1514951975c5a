"""Predictions as rows of a table: each scored place once, with the values that metrics see."""

import math

import numpy as np
import pytest
import torch

from seqbench.config.build import build
from seqbench.config.compose import compose
from seqbench.experiment.build import build_model, build_task
from seqbench.spec import Classes, Features, SequenceSpec
from seqbench.tasks.task import Batch, ExampleTask, Primary
from seqbench.training.predictions import ConfusionCount, PredictionRows, has_confusion

ADDING = ["task=adding", "task.length=6", "task.train_size=40", "task.eval_size=300"]
COPY = ["task=copy", "task.length=4", "task.train_size=40", "task.eval_size=20"]
MARKOV = [
    *["task=char_markov", "task.train_size=900", "task.eval_size=700"],
    *["task.length=16", "task.context=4"],
]
LSTM, LLAMA = ["model=lstm", "model.hidden_size=6"], ["model=llama", "model.dim=8"]
LLAMA = [*LLAMA, "model.num_heads=2", "model.num_kv_heads=2"]


def table_of(overrides, characters=""):
    """Return the metrics of an untrained model on test, its rows as columns, and the task."""
    config = compose([*overrides, "trainer.batch_size=4", "recipe=none"])
    trainer = build("trainer", config)
    task = build_task(config, trainer)
    model = build_model(config, task.spec)
    parts = []
    rows = PredictionRows(task, parts.append, characters)
    metrics = trainer.evaluate(model, task, "test", rows)
    assert trainer.evaluate(model, task, "test") == metrics
    return metrics, {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}, task


def test_values_are_a_row_per_example():
    metrics, columns, task = table_of([*ADDING, *LSTM])
    assert list(columns) == ["index", "target", "prediction"]
    assert columns["index"].tolist() == list(range(300)), "of two batches"
    targets = task.splits["test"][1][:, 0]
    assert columns["target"].tolist() == targets.tolist()
    error = (columns["prediction"].astype(float) - columns["target"]) ** 2
    assert error.mean() == pytest.approx(metrics["mse"], rel=1e-6)


def test_a_task_with_shorter_targets_says_what_they_belong_to():
    metrics, columns, _ = table_of([*COPY, *LSTM])
    assert list(columns) == ["example", "step", "target", "prediction", "probability"]
    assert len(columns["step"]) == 20 * 24
    recalled = columns["step"] >= 14  # the last ten of 24 steps
    assert set(columns["target"][~recalled].tolist()) == {0}
    hits = (columns["target"] == columns["prediction"])[recalled]
    assert hits.mean() == pytest.approx(metrics["recall_accuracy"])
    _, columns, _ = table_of([*COPY, "task.convention=recall_only", *LSTM])
    assert columns["step"].tolist() == list(range(14, 24)) * 20


MODELS = {"carries": LSTM, "skips": LLAMA, "both": [*LLAMA, "model.carry_state=true"]}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_each_step_of_a_text_is_one_row(model):
    metrics, columns, task = table_of([*MARKOV, *model])
    places = list(zip(columns["example"].tolist(), columns["step"].tolist(), strict=True))
    assert len(set(places)) == len(places) == 699
    # In the order of examples and steps, the targets are the text without its first symbol.
    order = sorted(range(len(places)), key=places.__getitem__)
    assert columns["target"][order].tolist() == task.symbols["test"][1:].tolist()
    examples = columns["example"][order]
    assert (np.diff(examples) >= 0).all()
    # An example's steps follow each other: after the first, none repeats the context.
    for example in set(examples.tolist()):
        steps = columns["step"][order][examples == example]
        assert (np.diff(steps) == 1).all()
    assert (columns["target"] == columns["prediction"]).mean() == pytest.approx(metrics["accuracy"])


def test_a_probability_is_that_of_the_predicted_class():
    metrics, columns, _ = table_of([*MARKOV, *LSTM])
    assert columns["probability"].min() >= 1 / 8
    hits = columns["target"] == columns["prediction"]
    # The model predicts the right class with this probability: its part of the cross-entropy.
    bits = -np.log2(columns["probability"][hits].astype(float))
    assert bits.sum() / len(hits) < metrics["bpc"] < math.log2(8) * 1.2


def test_classes_may_be_written_as_characters():
    _, numbers, task = table_of([*MARKOV, *LSTM])
    _, letters, _ = table_of([*MARKOV, *LSTM], task.vocabulary.characters)
    for name in ("target", "prediction"):
        assert "".join(letters[name]) == task.vocabulary.decode(numbers[name].tolist())


class Labels(ExampleTask):
    """Ten examples with one of three classes each."""

    spec = SequenceSpec(Features(3), Classes(3), "last", 1)
    primary = Primary("accuracy", "max")

    def __init__(self, targets):
        super().__init__(batch_size=1, seed=0, data_dir=None)
        self.splits = {"test": (torch.zeros(len(targets), 1, 3), targets)}

    def loss(self, outputs, batch):
        raise NotImplementedError

    metrics = loss


def counted(targets, outputs):
    task = Labels(targets)
    count = ConfusionCount(task)
    for start in range(0, len(targets), 2):  # more than one batch
        part = slice(start, start + 2)
        batch = Batch(outputs[part, None], targets[part])
        count(outputs[part], batch, batch)
    return count.matrix


def test_predictions_are_counted_by_true_class():
    predicted = torch.tensor([0, 1, 2, 2, 1, 0, 0])
    true = torch.tensor([0, 1, 2, 1, 1, 2, -100])
    outputs = torch.nn.functional.one_hot(predicted, 3).float()
    assert counted(true, outputs).counts == [[1, 0, 0], [0, 2, 1], [1, 0, 1]]


def test_soft_labels_are_no_classes():
    assert counted(torch.full((4, 3), 1 / 3), torch.randn(4, 3)) is None


def test_only_a_class_per_example_has_a_confusion_matrix():
    assert has_confusion(Labels(torch.zeros(2, dtype=torch.int64)))
    for words in (ADDING, COPY, MARKOV):
        config = compose([*words, "model=lstm", "trainer.batch_size=4"])
        assert not has_confusion(build_task(config, build("trainer", config)))
