"""A run is scored on another file with its own scaler, columns and classes."""

import csv
import json
from datetime import datetime, timedelta

import numpy as np
import pytest
from typer.testing import CliRunner

from seqbench.cli.main import app
from seqbench.config.compose import compose
from seqbench.errors import SeqbenchError
from seqbench.experiment import run
from seqbench.experiment.saved_run import SavedRun
from seqbench.results.summary import evaluations
from seqbench.runs.evaluations import read_evaluations
from seqbench.runs.run import Run

LENGTH, HORIZON, ROWS = 6, 4, {"x": 60, "y": 80}
HEADER = ["time", "shop", "sales", "price", "sunday"]
TRAINING = ["trainer.steps=8", "trainer.batch_size=8", "threads=1"]
MODEL = ["model=gru", "model.hidden_size=6"]


def table():
    """Rows of two series, as texts; every ninth target is missing."""
    random, rows = np.random.RandomState(0), []
    for shop, count in ROWS.items():
        for i in range(count):
            time = datetime(2024, 2, 27) + timedelta(hours=6 * i)
            sales = "" if i % 9 == 4 else f"{1e4 + 5 * (i % 4) + random.randn():.2f}"
            row = [time.isoformat(), shop, sales, f"{random.rand():.3f}", f"{i % 7 < 4:d}"]
            rows.append(row)
    return rows


def written(path, rows, header=HEADER):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def last_rows(rows):
    """Return the look-back of the first test window of each series, and all rows after it."""
    kept = []
    for shop, count in ROWS.items():
        own = [row for row in rows if row[1] == shop]
        kept += own[count - int(count * 0.2) - LENGTH :]
    return kept


@pytest.fixture(scope="module")
def forecaster(tmp_path_factory):
    """Return the folder of a run that forecasts; its training file is gone."""
    base = tmp_path_factory.mktemp("forecaster")
    path = written(base / "train.csv", table())
    words = ["task=forecast_file", f"task.path={path}", "task.group=shop", "task.target=sales"]
    words += [f"task.length={LENGTH}", f"task.horizon={HORIZON}", "task.missing=mask"]
    config = compose([*MODEL, *TRAINING, *words, "task.known=[sunday]", f"output_dir={base}"])
    run(config)
    path.unlink()
    return Run.of(config).folder


def sequences(path, seed=0, names=("flat", "high"), channels=2):
    random = np.random.RandomState(seed)
    y = np.arange(40) % 2
    x = random.randn(40, 9, channels) + y[:, None, None] * 3
    lengths = random.randint(3, 10, 40)
    np.savez(path, x=x, y=np.array(names)[y], lengths=lengths)
    return path


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """Return the folder of a run that classifies; of its files, that of training is gone."""
    base = tmp_path_factory.mktemp("classifier")
    path, test = sequences(base / "train.npz"), sequences(base / "test.npz", 1)
    words = ["task=classify_file", f"task.path={path}", f"task.test_path={test}"]
    config = compose([*MODEL, *TRAINING, *words, f"output_dir={base}"])
    run(config)
    path.unlink()
    return Run.of(config).folder


def invoke(*words):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["eval", *map(str, words)])


def test_the_windows_of_the_test_have_its_score(forecaster, tmp_path):
    new = written(tmp_path / "new.csv", last_rows(table()))
    answers = tmp_path / "answers.csv"
    done = invoke(forecaster, "--input", new, "--predictions", answers)
    record = SavedRun(forecaster).run.record
    scores = json.loads(done.stdout)
    expected = {k: v for k, v in record.metrics["test"].items() if not k.startswith("mase")}
    assert {k: scores.pop(k) for k in ("split", "step")}["split"] == "test"
    assert scores.keys() == expected.keys(), "the MASE needs the training rows"
    assert scores == pytest.approx(expected, rel=1e-6)
    lines = answers.read_text().splitlines()
    assert lines[0] == "index,series,origin,step,time,target,prediction"
    assert done.stderr == f"{answers}: {len(lines) - 1} rows\n"
    *_, kept = read_evaluations(forecaster / "evaluations.jsonl")
    assert kept.overrides == {"input": str(new)}
    assert kept.naive == pytest.approx(record.naive)
    digest = kept.data["new.csv"][:8]
    shown = evaluations(forecaster, record.config)[f"test input=new.csv {digest}"]
    assert shown.startswith("MSE ")
    assert f"seasonal naive MSE {kept.naive['seasonal naive']:.3g}" in shown
    assert "step 1 " not in shown
    assert "older code" not in shown
    assert "older code" in evaluations(forecaster, {})[f"test input=new.csv {digest}"]


def test_series_shorter_than_a_window_are_left_out(forecaster, tmp_path):
    rows = last_rows(table())
    x, y = ([row for row in rows if row[1] == shop] for shop in ROWS)
    alone = json.loads(invoke(forecaster, "--input", written(tmp_path / "y.csv", y)).stdout)
    both = invoke(forecaster, "--input", written(tmp_path / "both.csv", [*x[:9], *y]))
    assert both.stderr == "note: 1 series are shorter than a window, and are not scored\n"
    assert json.loads(both.stdout) == alone
    # The rows of the horizon after the last target are those of columns known ahead.
    ahead = [[*row[:2], "", "", row[4]] for row in x[9:12]]
    few = invoke(forecaster, "--input", written(tmp_path / "few.csv", [*x[:9], *ahead]))
    assert "at least 10 rows, a look-back of 6 and a horizon of 4, got 9" in str(few.exception)


def test_the_sequences_of_the_test_have_its_score(classifier):
    test = classifier.parents[3] / "test.npz"
    record = SavedRun(classifier).run.record
    done = invoke(classifier, "--input", test)
    scores = json.loads(done.stdout)
    assert {k: scores[k] for k in record.metrics["test"]} == record.metrics["test"]
    *_, kept = read_evaluations(classifier / "evaluations.jsonl")
    assert kept.naive == {"majority class": 0.5}
    assert list(kept.data) == ["test.npz"]


@pytest.mark.parametrize(
    ("made", "code", "said"),
    [
        (lambda p: sequences(p, names=("flat", "low")), 3, "class 'low' of test is not in the"),
        (lambda p: sequences(p, channels=3), 3, "expected 2 channels, as in the training file"),
        (lambda p: np.savez(p, x=np.zeros((2, 3, 2))), 3, "npz has no classes to score: expected"),
    ],
)
def test_sequences_that_do_not_fit_are_refused(classifier, tmp_path, made, code, said):
    made(tmp_path / "new.npz")
    failed = invoke(classifier, "--input", tmp_path / "new.npz").exception
    assert isinstance(failed, SeqbenchError)
    assert said in str(failed)
    assert failed.exit_code == code


@pytest.mark.parametrize(
    ("header", "made", "code", "said"),
    [
        ([*HEADER[:4], "monday"], lambda rows: rows, 2, "columns of the run: .* no column 'sunday"),
        (["time", "store", *HEADER[2:]], lambda rows: rows, 2, "has no column 'shop'"),
        (HEADER, lambda rows: rows[:40:2], 3, "time step is 12:00:00, and the model was trained"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(forecaster, tmp_path, header, made, code, said):
    new = written(tmp_path / "new.csv", made(table()), header)
    with pytest.raises(SeqbenchError, match=said) as raised:
        raise invoke(forecaster, "--input", new).exception
    assert raised.value.exit_code == code


def test_other_ways_to_name_a_file_lead_to_the_option(forecaster, classifier, tmp_path):
    new = written(tmp_path / "new.csv", table()[9:])
    npz = sequences(tmp_path / "new.npz", 2)
    hint = "; seqbench eval RUN --input FILE scores a file as the model was trained"
    for folder, word, is_file in [
        (forecaster, f"task.path={new}", True),
        (forecaster, "task.dataset=etth2", True),
        (classifier, f"task.path={npz}", True),
        (classifier, "task.pool=mean", False),
    ]:
        assert str(invoke(folder, word).exception).endswith(hint) == is_file
    refused = {("task.eval_size=2",): "task.eval_size=2", ("--split", "valid"): "--split valid"}
    for more, named in refused.items():
        failed = invoke(classifier, "--input", npz, *more).exception
        assert str(failed) == f"--input scores all of a file, so it takes no {named}"


def test_other_splits_would_score_training_examples(tmp_path):
    reviews = [f"{i} {word},{word}" for i in range(20) for word in ("good", "bad")]
    for name in ("reviews.csv", "test.csv"):
        (tmp_path / name).write_text("\n".join(["text,label", *reviews]))
    words = ["task=sentiment_file", f"task.path={tmp_path}/reviews.csv", *MODEL, *TRAINING]
    words += ["task.text=text", "task.label=label", f"output_dir={tmp_path}"]
    config = compose([*words, f"task.test_path={tmp_path}/test.csv"])
    record, folder = run(config), Run.of(config).folder
    said = (
        " draws other splits, which may put training examples into them; seqbench eval RUN --input"
    )
    for word in ("split_seed=7", "valid_size=0.5", "test_size=0.5", "test_path=null"):
        failed = invoke(folder, f"task.{word}").exception
        assert f"task.{word}{said}" in str(failed)
        assert failed.exit_code == 2
    own = invoke(folder, "task.split_seed=0", "task.test_size=0.2")
    assert json.loads(own.stdout)["accuracy"] == record.metrics["test"]["accuracy"]


def test_runs_of_other_tasks_name_their_way(tmp_path):
    (tmp_path / "my.txt").write_text("the cat sat on the mat. " * 200)
    tasks = {
        "adding": ["task.length=10", "task.train_size=32", "task.eval_size=8"],
        "char_file": [f"task.path={tmp_path / 'my.txt'}"],
    }
    said = {
        "adding": "one of adding: seqbench eval RUN task.KEY=VALUE changes the task",
        "char_file": "one of char_file: seqbench eval RUN task.path=FILE scores another text",
    }
    for task, words in tasks.items():
        config = compose([f"task={task}", *words, *MODEL, *TRAINING, f"output_dir={tmp_path}"])
        run(config)
        failed = invoke(Run.of(config).folder, "--input", tmp_path / "my.txt").exception
        assert str(failed).endswith(said[task])
