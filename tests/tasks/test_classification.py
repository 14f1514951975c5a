"""Padding changes nothing, splits are stratified and disjoint, scaling uses train only."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbench.config.build import build
from seqbench.config.choices import choices_of, read_choice
from seqbench.contracts.task import check_task
from seqbench.errors import ConfigError, DataError
from seqbench.experiment.build import build_model
from seqbench.models.sequence_model import SequenceModel, as_sequence_model
from seqbench.runs.confusion import ConfusionMatrix
from seqbench.spec import Classes, Features, SequenceSpec
from seqbench.tasks.class_splits import stratified
from seqbench.tasks.task import Batch
from seqbench.training.prediction import predict

MODELS = sorted(set(choices_of("model")) - {"nlinear", "dlinear"})
SMALL = {
    "tcn": {"channels": [6, 6, 6], "kernel_size": 3, "dropout": 0.0},
    "llama": {"dim": 8, "num_heads": 2, "num_layers": 2, "dropout": 0.0},
    "transformer_xl": {"dim": 8, "num_heads": 2, "num_layers": 2, "hidden_dim": 12},
    "tcn_attention": {"channels": [6, 8], "kernel_size": 3},
}


@pytest.fixture
def classify(tmp_path):
    """Build the task of arrays."""

    def made(batch_size=8, seed=0, **values):
        arrays = {k: values.pop(k) for k in ("x", "y", "lengths") if k in values}
        np.savez(tmp_path / "my.npz", **arrays)
        node = read_choice("task", "classify_file") | {"path": str(tmp_path / "my.npz")} | values
        options = {"batch_size": batch_size, "seed": seed, "data_dir": None}
        return build("task", {"task": node}, **options)

    return made


def random_data(count=60, time=12, channels=2, classes=3):
    random = np.random.RandomState(0)
    return {
        "x": random.randn(count, time, channels),
        "y": np.arange(count) % classes,
        "lengths": random.randint(1, time + 1, count),
    }


def model_of(name, spec):
    node = read_choice("model", name) | SMALL.get(name, {"hidden_size": 7, "dropout": 0.0})
    return build_model({"model": node, "seed": 0}, spec)


class Bidirectional(torch.nn.Module):
    """A model of a user's that knows nothing of lengths, and reads both ways."""

    def __init__(self, spec):
        super().__init__()
        self.layer = torch.nn.GRU(spec.input.dim, 5, batch_first=True, bidirectional=True)
        self.output = torch.nn.Linear(10, spec.output_dim)

    def forward(self, x):
        return self.output(self.layer(x)[0].mean(1))


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("name", [*MODELS, "of a user"])
@pytest.mark.parametrize("readout", ["last", "mean"])
@settings(max_examples=8)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_padding_changes_neither_outputs_nor_gradients(name, readout, lengths, seed):
    if name == "of a user" and readout == "mean":
        return
    spec = SequenceSpec(Features(2), Classes(3), readout, 40, variable_length=True)
    torch.manual_seed(0)
    model: SequenceModel = (
        as_sequence_model(Bidirectional(spec)) if name == "of a user" else model_of(name, spec)
    )
    random = torch.Generator().manual_seed(seed)
    sequences = [torch.randn(length, 2, generator=random) for length in lengths]
    inputs = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True)
    targets = torch.randint(3, (len(lengths),), generator=random)
    batch = Batch(inputs, targets, lengths=torch.tensor(lengths))
    padded, _, carried = predict(model, batch, None, spec)
    assert carried is None
    alone = torch.cat([model(x[None])[0] for x in sequences])
    assert torch.allclose(padded, alone, rtol=1e-4, atol=1e-6)
    loss = torch.nn.functional.cross_entropy
    expected = gradients(model, loss(alone, targets))
    assert torch.allclose(gradients(model, loss(padded, targets)), expected, rtol=1e-3, atol=1e-5)


def test_each_sequence_is_in_one_batch_of_an_epoch_beside_those_of_like_length(classify):
    data = random_data(count=500, time=60)
    task = classify(**data, valid_size=0.1, test_size=0.1, batch_size=9)
    count = len(task.rows["train"])
    assert count % 9  # the last batch is smaller
    for epoch in (0, 3):
        first = epoch * task.steps_per_epoch
        rows = [task.training_rows(first + i) for i in range(task.steps_per_epoch)]
        assert torch.cat(rows).sort().values.tolist() == [*range(count)]
        assert [len(own) for own in rows] == [9] * (count // 9) + [count % 9]
    lengths = task.sequences.lengths[task.rows["train"]]
    spread = np.mean([np.ptp(lengths[own].numpy()) for own in rows[:-1]])
    assert spread < 8  # of lengths from 1 to 60
    again = classify(**data, valid_size=0.1, test_size=0.1, batch_size=9)
    other = classify(**data, valid_size=0.1, test_size=0.1, batch_size=9, seed=1)
    assert torch.equal(task.training_rows(7), again.training_rows(7))
    assert not torch.equal(task.training_rows(7), other.training_rows(7))


def test_a_batch_of_one_length_has_no_lengths(classify):
    data = random_data() | {"lengths": np.array([12] * 30 + [5] * 30)}
    task = classify(**data)
    batches = [task.train_batch(i) for i in range(task.steps_per_epoch)]
    assert any(batch.lengths is None for batch in batches)
    assert {batch.inputs.shape[1] for batch in batches} == {12, 5}
    for batch in batches:
        assert batch.lengths is None or batch.lengths.max() == batch.inputs.shape[1]
    del data["lengths"]
    equal = classify(**data)
    assert not equal.spec.variable_length
    assert "variable_length" not in equal.spec.to_json()
    assert SequenceSpec.from_json(task.spec.to_json()) == task.spec


@pytest.mark.parametrize("values", [{}, {"missing": "mask"}, {"class_weight": "balanced"}])
def test_the_task_holds_every_contract(classify, values):
    data = random_data()
    if values.get("missing"):
        data["x"][3, 0, 1] = np.nan
    results = check_task(lambda seed: classify(**data, seed=seed, **values))
    failed = [result for result in results if not result.passed]
    assert not failed


def test_the_scaler_is_that_of_the_training_sequences_without_padding(classify):
    data = random_data()
    task = classify(**data)
    inside = np.arange(12) < data["lengths"][:, None]
    rows = task.rows["train"].numpy()
    used = data["x"][rows][inside[rows]]
    assert np.allclose(task.features.mean, used.mean(0))
    assert np.allclose(task.features.std, used.std(0))
    data["x"][~inside] = 1e9
    data["x"][task.rows["test"]] *= 100
    changed = classify(**data)
    assert changed.features.to_json() == task.features.to_json()
    batch = next(iter(task.eval_batches("valid")))
    padding = torch.arange(batch.inputs.shape[1]) >= batch.lengths[:, None]
    assert not batch.inputs[padding].any()


def test_missing_values_are_zero_with_an_indicator_or_an_error_that_names_the_place(classify):
    data = random_data() | {"lengths": np.full(60, 12)}
    data["x"][4, 2, 1] = np.nan
    with pytest.raises(DataError, match=r"step 3: channel_2 is missing; task.missing"):
        classify(**data)
    task = classify(**data, missing="mask")
    assert task.spec.input.dim == 4
    inputs, _ = task.sequences.padded(torch.tensor([4]))
    assert inputs[0, 2, 1] == 0
    assert inputs[0, :, 2:].nonzero().tolist() == [[2, 1]]
    data["x"][4, 2, 1] = np.inf
    with pytest.raises(DataError, match="sequence 5, step 3: channel_2 is infinite"):
        classify(**data, missing="mask")


@given(st.lists(st.integers(3, 30), min_size=2, max_size=5), st.integers(0, 9))
@settings(max_examples=30)
def test_splits_are_disjoint_and_have_the_fractions_of_each_class(counts, seed):
    labels = [str(i) for i, count in enumerate(counts) for _ in range(count)]
    rows = stratified(labels, {"valid": 0.2, "test": 0.3}, seed, "f")
    assert sorted(np.concatenate([*rows.values()])) == [*range(len(labels))]
    names = np.array(labels)
    for i, count in enumerate(counts):
        own = {split: int((names[at] == str(i)).sum()) for split, at in rows.items()}
        assert min(own.values()) >= 1
        assert abs(own["valid"] - 0.2 * count) <= 1
        assert abs(own["test"] - 0.3 * count) <= 1


def test_a_class_with_too_few_sequences_is_named():
    with pytest.raises(DataError, match="class 'b' has 2 examples, expected at least 3, one for"):
        stratified([*"aaabb"], {"valid": 0.2, "test": 0.2}, 0, "f")
    with pytest.raises(ConfigError, match=r"task.valid_size must be above 0 and below 1, not 1.5"):
        stratified([*"aaabb"], {"valid": 1.5}, 0, "f")
    with pytest.raises(ConfigError, match="leave no examples for training"):
        stratified([*"aaabb"], {"valid": 0.5, "test": 0.5}, 0, "f")


def test_the_test_file_is_for_test_alone(classify, tmp_path):
    data = random_data()
    names = ("x", "y", "lengths")
    np.savez(tmp_path / "test.npz", **{k: data[k][:9] + (k == "x") for k in names})
    task = classify(**data, test_path=str(tmp_path / "test.npz"))
    assert task.rows["test"].tolist() == [*range(60, 69)]
    assert sorted(torch.cat([task.rows["train"], task.rows["valid"]]).tolist()) == [*range(60)]
    assert set(task.checksums) == {"my.npz", "test.npz"}
    np.savez(tmp_path / "test.npz", x=data["x"], y=data["y"] + 1)
    with pytest.raises(DataError, match="class '3' of test is not in the training sequences"):
        classify(**data, test_path=str(tmp_path / "test.npz"))
    np.savez(tmp_path / "test.npz", x=data["x"][..., :1], y=data["y"])
    with pytest.raises(DataError, match="expected 2 channels, as in the training file, got 1"):
        classify(**data, test_path=str(tmp_path / "test.npz"))


def test_scores_are_those_of_the_confusion_matrix(classify):
    data = random_data(count=300) | {"y": np.arange(300) % 7 % 3}
    task = classify(**data, eval_size=None, batch_size=16)
    random = torch.Generator().manual_seed(0)
    sums, counts = {}, {}
    matrix = np.zeros((3, 3), int)
    task.sequences.parts(task.rows["test"])
    for rows in task.rows["test"].split(20):
        batch = task.batch(rows)
        outputs = torch.randn(len(rows), 3, generator=random)
        np.add.at(matrix, (batch.targets.numpy(), outputs.argmax(-1).numpy()), 1)
        for name, (total, count) in task.metrics(outputs, batch).items():
            sums[name] = sums.get(name, 0) + float(total)
            counts[name] = counts.get(name, 0) + count
    found = task.metrics_of({name: total / counts[name] for name, total in sums.items()})
    expected = ConfusionMatrix(matrix.tolist())
    assert found["accuracy"] == pytest.approx(expected.accuracy)
    assert found["balanced_accuracy"] == pytest.approx(expected.balanced_accuracy)
    assert found["macro_f1"] == pytest.approx(expected.macro_f1)
    majority = matrix.sum(1)[0] / matrix.sum()
    assert task.naive == {"majority class": pytest.approx(majority)}
    assert task.baseline == pytest.approx(majority)


def test_classes_are_not_made_equal_by_an_array_of_texts():
    rows = stratified(["a", "a\0"] * 10, {"valid": 0.2, "test": 0.3}, 0, "f")
    assert {split: len(at) for split, at in rows.items()} == {"valid": 4, "test": 6, "train": 10}


def test_the_notes_list_the_channels_and_a_likely_counter(classify, tmp_path):
    lines = ["id,step,ax,half,label"]
    for i in range(12):
        lines += [f"{i},{t + i},{i * t},{t / 2},{'ab'[i % 2]}" for t in range(i + 1)]
    (tmp_path / "my.csv").write_text("\n".join(lines))
    path = str(tmp_path / "my.csv")
    notes = classify(x=[], path=path).notes
    assert notes["channels"] == "step, ax, half"
    assert notes["likely_counter"].startswith("step: rises by 1 in each sequence")
    assert notes["likely_counter"].endswith("set task.time=step")
    notes = classify(x=[], path=path, time="step").notes
    assert notes["channels"] == "ax, half"
    assert "likely_counter" not in notes
    notes = classify(**random_data()).notes
    assert (notes["channels"], "likely_counter" in notes) == (2, False)


def test_a_file_that_has_changed_is_named_with_its_setting(classify, tmp_path):
    data = random_data()
    np.savez(tmp_path / "test.npz", **data)
    for key, file in {"sha256": "my.npz", "test_sha256": "test.npz"}.items():
        setting = f"task.{key.removesuffix('sha256')}path="
        with pytest.raises(ConfigError, match=f"{file} differs from the file .*{setting} names"):
            classify(**data, test_path=str(tmp_path / "test.npz"), **{key: "0" * 64})


def test_balanced_classes_count_the_same_in_the_loss(classify):
    y = np.array([0] * 50 + [1] * 10)
    task = classify(**random_data() | {"y": y}, class_weight="balanced")
    per_class = torch.bincount(task.targets[task.rows["train"]]) * task.weights
    assert per_class[0] == pytest.approx(float(per_class[1]))
    assert float(per_class.sum()) == pytest.approx(len(task.rows["train"]))


def test_a_file_with_one_class_or_none_is_refused(classify):
    data = random_data()
    with pytest.raises(DataError, match="expected at least 2 classes, got 1"):
        classify(**data | {"y": np.zeros(60, int)})
    del data["y"]
    with pytest.raises(DataError, match="has no classes: expected an array y in an npz file"):
        classify(**data)
    with pytest.raises(ConfigError, match=r"task.channels: .* has no channel 'chanel_1' .did you"):
        classify(**random_data(), channels=["chanel_1"])
