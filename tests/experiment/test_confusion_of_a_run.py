"""A run on a task with classes keeps the confusion matrix of its test, and shows it."""

from functools import partial

import numpy as np
import pytest
from typer.testing import CliRunner

from seqbench.cli.main import app
from seqbench.config.compose import compose
from seqbench.datasets.mnist import Mnist
from seqbench.experiment import run
from seqbench.results.collect import collect
from seqbench.results.report.content import build_content
from seqbench.runs.confusion import read_confusion
from seqbench.runs.run import Run

IMAGES = 60


@pytest.fixture
def train(monkeypatch, tmp_path):
    """Train a model on images whose class is their brightness; return record and folder."""
    labels = np.arange(IMAGES, dtype=np.uint8) % 10
    images = np.broadcast_to(labels[:, None, None] * 25, (IMAGES, 28, 28))
    mnist = Mnist(images, labels, images, labels, {"images": "0"})
    monkeypatch.setattr("seqbench.tasks.mnist.load_mnist", lambda data_dir: mnist)

    def begin(*overrides):
        words = ["task=smnist", "model=gru", "model.hidden_size=2", "threads=1", "trainer.steps=2"]
        words += ["model.num_layers=2", "model.chrono=null", "model.forget_bias=1.0"]
        words += ["task.train_size=20", "task.eval_size=30", "trainer.batch_size=10"]
        config = compose([*words, "task.valid_size=20", f"output_dir={tmp_path}", *overrides])
        return run(config), Run.of(config)

    return begin


@pytest.mark.parametrize("watch", ["valid", "test"])
def test_the_test_is_counted_by_class(train, watch):
    record, folder = train(f"trainer.watch={watch}")
    assert record.status == "completed"
    matrix = read_confusion(folder.confusion_path)
    assert matrix.targets == [3] * 10
    assert matrix.accuracy == pytest.approx(record.metrics["test"]["accuracy"])
    assert "confusion" not in folder.record_path.read_text()

    shown = CliRunner(env={"COLUMNS": "100"}).invoke(app, ["show", str(folder.folder)]).stdout
    words = " ".join(shown.split())
    assert "confusion matrix of the test: rows are true classes, columns predictions" in words
    row = " ".join(str(n) if n else "·" for n in matrix.counts[9])
    assert f" 9 {row} " in words
    assert f"balanced accuracy {100 * matrix.balanced_accuracy:.1f} %, macro F1 0." in words
    narrow = CliRunner(env={"COLUMNS": "30"}).invoke(app, ["show", str(folder.folder)]).stdout
    true, predicted, examples = matrix.mistakes(1)[0]
    assert f"true predicted examples {true} {predicted} {examples} " in " ".join(narrow.split())

    found = collect([folder.folder])
    (page,) = build_content(found.records, [], found.folders)["runs"]
    assert page["confusion"]["counts"] == matrix.counts
    assert page["confusion"]["mistakes"][0] == [str(true), str(predicted), examples]


def test_a_run_that_starts_again_has_no_earlier_matrix(train):
    folder = train()[1]
    assert folder.confusion_path.exists()
    folder.start_over()
    assert not folder.confusion_path.exists()


def test_predictions_are_written_by_eval(train, tmp_path):
    _record, folder = train()
    invoke = partial(CliRunner().invoke, app)
    file = tmp_path / "p.csv"
    done = invoke(["eval", str(folder.folder), "--predictions", str(file)])
    assert done.exit_code == 0
    header, *lines = file.read_text().splitlines()
    assert header == "index,target,prediction,probability"
    pairs = [tuple(map(int, line.split(",")[1:3])) for line in lines]
    counts = [[pairs.count((t, p)) for p in range(10)] for t in range(10)]
    assert counts == read_confusion(folder.confusion_path).counts
    assert done.stdout == invoke(["eval", str(folder.folder)]).stdout
    for name in ("p.txt", "missing/p.csv"):
        assert invoke(["eval", str(folder.folder), "--predictions", name]).exception.exit_code == 2
