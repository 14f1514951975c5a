"""A run classifies a new file as it would have scored it, and without the training file."""

import csv

import numpy as np
import pytest
from typer.testing import CliRunner

from seqbench.cli.main import app
from seqbench.config.compose import compose
from seqbench.errors import ConfigError, DataError, SeqbenchError
from seqbench.experiment import run
from seqbench.experiment.classifying import classify
from seqbench.experiment.saved_run import SavedRun
from seqbench.runs.run import Run
from seqbench.training.predictions import unused

COUNT, TIME = 40, 9


def arrays(seed=0):
    """Waves of two shapes, of different lengths, whose classes have names."""
    random = np.random.RandomState(seed)
    y = np.arange(COUNT) % 2
    x = random.randn(COUNT, TIME, 2) + y[:, None, None] * [5.0, 0.0]
    return {
        "x": x,
        "y": np.array(["flat", "high"])[y],
        "lengths": random.randint(3, TIME + 1, COUNT),
    }


def table(path, data, columns=("who", "t", "kind", "channel_1", "channel_2"), skip=()):
    """Write arrays as a long table."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(columns)
        for i, (x, y, length) in enumerate(zip(*data.values(), strict=True)):
            for t in range(length):
                rows.writerow([f"s{i}", t, y, *x[t]])
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on a table, whose file is gone, and its data."""
    folder = tmp_path_factory.mktemp("classify")
    data = arrays()
    path = table(folder / "my.csv", data)
    words = ["task=classify_file", "model=gru", "model.hidden_size=6", f"task.path={path}"]
    words += ["task.id=who", "task.time=t", "task.label=kind", "trainer.steps=40", "threads=1"]
    words += ["optimizer.lr=0.03"]
    config = compose([*words, f"output_dir={folder}", "trainer.batch_size=8"])
    record = run(config)
    assert record.metrics["test"]["accuracy"] == 1
    scored = []
    SavedRun(Run.of(config).folder).evaluate("test", write=scored.append)
    path.unlink()
    return Run.of(config).folder, data, scored[0]


def predictions(folder, path):
    parts = list(classify(SavedRun(folder), str(path)))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def test_predictions_are_those_of_the_test(trained, tmp_path):
    folder, data, scored = trained
    found = predictions(folder, table(tmp_path / "new.csv", data))
    assert list(found) == ["who", "class", "probability_flat", "probability_high"]
    assert found["who"].tolist() == [f"s{i}" for i in range(COUNT)]
    assert found["class"].tolist() == data["y"].tolist()
    assert np.allclose(found["probability_flat"] + found["probability_high"], 1)
    chosen = np.maximum(found["probability_flat"], found["probability_high"])
    # The test has 8 of the sequences, each with its probability.
    for name, share in zip(scored["prediction"], scored["probability"], strict=True):
        assert np.isclose(chosen[found["class"] == name], share, atol=1e-6).any()


def test_other_kinds_of_file_are_classified_alike(trained, tmp_path):
    folder, data, _ = trained
    by_name = predictions(folder, table(tmp_path / "new.csv", data))
    np.savez(tmp_path / "new.npz", x=data["x"], lengths=data["lengths"])
    found = predictions(folder, tmp_path / "new.npz")
    assert found.pop("sequence").tolist() == [*range(1, COUNT + 1)]
    for name, values in found.items():
        if name == "class":
            assert values.tolist() == by_name[name].tolist()
        else:
            assert np.allclose(values, by_name[name], atol=1e-6)


def test_labels_of_the_new_file_are_not_read(trained, tmp_path):
    folder, data, _ = trained
    found = predictions(folder, table(tmp_path / "new.csv", data | {"y": [""] * COUNT}))
    assert found["class"].tolist() == data["y"].tolist()


@pytest.mark.parametrize(
    ("columns", "kind", "said"),
    [
        (("who", "t", "kind", "channel_1", "right"), ConfigError, "no channel 'channel_2'"),
        (
            ("id", "t", "kind", "channel_1", "channel_2"),
            ConfigError,
            "no column 'who'.*: rename the one that",
        ),
        (("who", "time", "kind", "channel_1", "channel_2"), ConfigError, "no column 't'"),
    ],
)
def test_columns_that_do_not_fit_are_named(trained, tmp_path, columns, kind, said):
    folder, data, _ = trained
    with pytest.raises(kind, match=said):
        predictions(folder, table(tmp_path / "new.csv", data, columns))


def test_files_that_do_not_fit_are_refused(trained, tmp_path):
    folder, data, _ = trained
    np.savez(tmp_path / "new.npz", x=data["x"][..., :1])
    with pytest.raises(DataError, match="expected 2 channels, as in the training file, got 1"):
        predictions(folder, tmp_path / "new.npz")
    x = data["x"].copy()
    x[3, 0, 0] = np.nan
    np.savez(tmp_path / "new.npz", x=x)
    with pytest.raises(DataError, match="sequence 4, step 1: channel_1 is missing; the model was"):
        predictions(folder, tmp_path / "new.npz")


def test_column_names_of_the_answer_differ():
    columns = {"Class": 1, "class_": 2}
    assert unused("class", columns) == "class__"
    assert unused("share", columns) == "share"


def test_the_command_writes_a_file(trained, tmp_path):
    folder, data, _ = trained
    new, out = table(tmp_path / "new.csv", data), tmp_path / "classes.csv"
    words = ["predict", str(folder), "--input", str(new), "--output"]
    done = CliRunner().invoke(app, [*words, str(out)])
    assert done.exit_code == 0, done.output
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == data["y"].tolist()
    printed = CliRunner().invoke(app, [*words, "-"])
    assert printed.stdout == out.read_text()
    refused = CliRunner().invoke(app, [*words, "-", "--rolling"])
    assert isinstance(refused.exception, SeqbenchError)
    assert "--rolling is for forecasts" in str(refused.exception)


def test_show_names_the_classes(trained):
    folder, _, _ = trained
    shown = CliRunner().invoke(app, ["show", str(folder)]).output
    head = next(line for line in shown.splitlines() if line.startswith("true"))
    assert head.split() == ["true", "flat", "high", "recall"]
    assert "majority class" in shown
