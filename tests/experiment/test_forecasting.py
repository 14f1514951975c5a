"""A run forecasts a new table as it would have scored it, and without the training file."""

import csv
from datetime import datetime, timedelta

import duckdb
import numpy as np
import pytest
from typer.testing import CliRunner

from seqbench.cli.main import app
from seqbench.config.compose import compose
from seqbench.errors import ConfigError, DataError, RunError, SeqbenchError
from seqbench.experiment import forecasting, run
from seqbench.experiment.saved_run import SavedRun
from seqbench.runs.run import Run

LENGTH, HORIZON, ROWS = 6, 4, {"x": 60, "y": 80}
HEADER = ["time", "shop", "sales", "price", "sunday"]
# Settings of the task -> columns that the run forecasts.
SETTINGS = {
    "plain": ("task.normalize=none", "task.target=sales", "task.inputs=[]"),
    "last": ("task.normalize=last", "task.target=[price,sales]", "task.known=[sunday]"),
    "window": ("task.normalize=window", "task.target=sales", "task.calendar=false"),
    "mask": ("task.missing=mask", "task.target=[sales,price]", "task.known=[sunday]"),
}


def table(masked=False):
    """Rows of two series below each other, as texts."""
    random, rows = np.random.RandomState(0), []
    for shop, count in ROWS.items():
        for i in range(count):
            time = datetime(2024, 2, 27) + timedelta(hours=6 * i)
            sales = "" if masked and i % 9 == 4 else f"{1e4 + 5 * (i % 4) + random.randn():.2f}"
            rows.append(
                [time.isoformat(), shop, sales, f"{random.rand():.3f}", str(int(i % 7 < 4))]
            )
    return rows


def written(path, rows, header=HEADER):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def changed(rows, at, column, value):
    """Return rows with another value in one place."""
    rows = [list(row) for row in rows]
    rows[at][column] = value
    return rows


def run_on(path, *words, task="forecast_file"):
    """Train a run on a file."""
    if task == "forecast_file":
        words = (*words, f"task.length={LENGTH}", f"task.horizon={HORIZON}")
    words = (f"task={task}", *words, "trainer.steps=8", "trainer.batch_size=8", "threads=1")
    config = compose([*words, f"task.path={path}", f"output_dir={path.parent}"])
    run(config)
    return SavedRun(Run.of(config).folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a run of some settings without its training file, with what it answered on test."""
    made = {}

    def make(name):
        if name not in made:
            base = tmp_path_factory.mktemp(name)
            path = written(base / "train.csv", table(name == "mask"))
            words = ["model=gru", "model.hidden_size=8", "task.group=shop", *SETTINGS[name]]
            saved, answered = run_on(path, *words), []
            saved.evaluate("test", write=answered.append)
            parts = [[part[name] for name in part if "prediction" in name] for part in answered]
            rows = np.concatenate([np.stack(part, 1) for part in parts])
            answers = rows.reshape(-1, HORIZON * rows.shape[1])
            path.unlink()
            made[name] = saved.run.folder, answers
        return made[name]

    return make


def forecasts(saved, path, **options):
    """Return the forecasts of a table, each column as one array."""
    parts = list(forecasting.forecast(saved, str(path), **options))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def values_of(found):
    """Return the forecasts `(origins, horizon, targets)`."""
    numbers = [column for column in found.values() if column.dtype == np.float64]
    return np.stack(numbers, 1).reshape(-1, HORIZON, len(numbers))


@pytest.mark.parametrize("name", SETTINGS)
def test_rolling_forecasts_are_those_of_the_evaluation(trained, name, tmp_path, monkeypatch):
    monkeypatch.setattr(forecasting, "BATCH", 7)
    folder, answers = trained(name)
    rows = table(name == "mask")
    found = forecasts(SavedRun(folder), written(tmp_path / "new.csv", rows), rolling=True)
    forecast, first = values_of(found), 0
    for shop, count in ROWS.items():
        mine = found["shop"] == shop
        times = np.array([row[0] for row in rows if row[1] == shop], "datetime64[us]")
        origins = found["origin"][mine].reshape(-1, HORIZON)[:, 0]
        assert (origins == times[LENGTH - 1 :][: len(origins)]).all()
        until = count - HORIZON if "known" in str(SETTINGS[name]) else count
        assert len(origins) == until + 1 - LENGTH
        steps = np.timedelta64(6, "h") * np.arange(1, HORIZON + 1)
        assert (found["time"][mine] == (origins[:, None] + steps).ravel()).all()
        tested = (origins >= times[-count // 5 - 1]) & (origins <= times[-HORIZON - 1])
        own = forecast[mine.reshape(-1, HORIZON)[:, 0]][tested].reshape(tested.sum(), -1)
        np.testing.assert_allclose(own, answers[first : first + len(own)], rtol=2e-6, atol=1e-6)
        first += len(own)
    assert first == len(answers)


@pytest.mark.parametrize("name", SETTINGS)
def test_no_row_after_the_origin_is_read(trained, name, tmp_path):
    saved, masked = SavedRun(trained(name)[0]), name == "mask"
    whole = forecasts(saved, written(tmp_path / "whole.csv", table(masked)), rolling=True)
    at = np.datetime64("2024-03-05T06")
    future = [row for row in table(masked) if np.datetime64(row[0]) > at]
    cut = [[*r[:2], "", "", r[4]] if r in future else r for r in table(masked)]
    cut = [row for row in cut if np.datetime64(row[0]) <= at + np.timedelta64(24, "h")]
    found = forecasts(saved, written(tmp_path / "cut.csv", cut))
    assert list(found) == [column for column in whole if column != "origin"]
    now = whole["origin"] == at
    assert all((found[name] == whole[name][now]).all() for name in ("shop", "time"))
    np.testing.assert_allclose(values_of(found), values_of(whole)[now[::HORIZON]], rtol=1e-6)
    before = whole["origin"][::HORIZON] <= at
    for values in (["7", "8", None], [None, None, "5"]):
        other = [[*r[:2], *(b or a for a, b in zip(r[2:], values, strict=True))] for r in future]
        past = [row for row in table(masked) if row not in future]
        path = written(tmp_path / "other.csv", sorted([*past, *other], key=lambda r: r[1::-1]))
        again = values_of(forecasts(saved, path, rolling=True))[before]
        is_read = values[2] is not None and "known" in str(SETTINGS[name])
        assert (again == values_of(whole)[before]).all() != is_read


@pytest.mark.parametrize(
    ("make", "code", "said"),
    [
        (lambda x: x[:6], 3, "series 'x': expected at least 6 rows, the look-back .* got 5"),
        (lambda x: [x[0], *x[1:61:2]], 3, "step is 12:00:00, and the model was trained with 6:00"),
        (lambda x: changed(x, 59, 3, "cheap"), 3, "row 59: price is 'cheap', expected a number"),
        (lambda x: changed(x, 59, 3, ""), 3, r"row 59 .*: price is missing; .* trained with"),
        (lambda x: changed(x, 0, 0, "when"), 2, "has no column 'time'"),
        (lambda x: changed(x, 0, 1, "store"), 2, "has no column 'shop'"),
        (lambda x: changed(x, 0, 3, "cost"), 2, "columns of the run: .* no column 'price'"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(trained, make, code, said, tmp_path):
    header, *rows = make([HEADER, *table()])
    with pytest.raises(SeqbenchError, match=said) as raised:
        forecasts(SavedRun(trained("window")[0]), written(tmp_path / "new.csv", rows, header))
    assert raised.value.exit_code == code


def test_columns_known_ahead_must_be_there(trained, tmp_path):
    saved, rows = SavedRun(trained("last")[0]), table()[:60]
    said = r"series 'x': expected 4 rows with sunday .* \(2024-03-12 12:00\), got 1: add them"
    rows[-1][2:4] = "", ""
    with pytest.raises(DataError, match=said):
        forecasts(saved, written(tmp_path / "few.csv", rows))
    for row in rows[-4:]:
        row[2:] = "", "", ""
    with pytest.raises(DataError, match=r"row 57 .*: sunday is missing"):
        forecasts(saved, written(tmp_path / "empty.csv", rows))


def test_the_command_writes_a_table(trained, tmp_path):
    folder, _ = trained("window")
    # What is missing before the look-back is not read.
    new = written(tmp_path / "new.csv", changed(table(), 50, 3, ""))
    words = ["predict", str(folder), "--input", str(new)]
    shown = CliRunner().invoke(app, words)
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert shown.stdout.splitlines()[0] == "shop,time,sales"
    done = CliRunner().invoke(app, [*words, "-o", str(tmp_path / "f.parquet")])
    assert done.stderr.endswith("f.parquet: 8 rows\n")
    rows = duckdb.read_parquet(str(tmp_path / "f.parquet")).fetchall()
    printed = list(csv.reader(shown.stdout.splitlines()[1:]))
    assert [[a, str(b), str(c)] for a, b, c in rows] == printed
    assert rows[0][:2] == ("x", datetime(2024, 3, 13))


def test_rows_without_times_are_numbered(tmp_path):
    path = written(tmp_path / "my.csv", ([row[2]] for row in table()[:60]), ["origin"])
    found = forecasts(run_on(path, "model=nlinear"), path, rolling=True)
    assert list(found) == ["origin_", "row", "origin"]
    assert found["origin_"].tolist() == [row for row in range(6, 61) for _ in range(4)]
    assert found["row"][-3:].tolist() == [62, 63, 64]


def zoned(path, rows, *offsets):
    """Write rows of a series with a value every hour, at local times with an offset in hours."""
    lines = []
    for i in range(rows):
        offset = offsets[i * len(offsets) // rows]
        local = datetime(2024, 3, 30) + timedelta(hours=i + offset)
        lines.append([f"{local}+{offset:02}:00", str(i % 24)])
    return written(path, lines, ["time", "load"])


def test_times_of_a_new_file_are_in_the_time_zone_of_the_training_data(tmp_path):
    """A file over a clock change is in UTC, and so is a day of summer, which has one offset."""
    changing = run_on(zoned(tmp_path / "year.csv", 80, 1, 2), "model=nlinear")
    found = forecasts(changing, zoned(tmp_path / "day.csv", 24, 2))
    assert found["time"][0] == np.datetime64("2024-03-31T00:00")
    local = run_on(zoned(tmp_path / "winter.csv", 80, 1), "model=nlinear")
    found = forecasts(local, zoned(tmp_path / "summer.csv", 24, 2))
    assert found["time"][0] == np.datetime64("2024-03-31T02:00")
    with pytest.raises(DataError, match="are in UTC, and the model was trained with local times"):
        forecasts(local, tmp_path / "year.csv")


def test_another_run_is_refused(trained, tmp_path):
    (tmp_path / "my.txt").write_text("the cat sat on the mat. " * 200)
    text = run_on(tmp_path / "my.txt", "model=gru", "model.hidden_size=4", task="char_file")
    with pytest.raises(ConfigError, match="one of char_file: seqbench generate RUN --prompt"):
        forecasts(text, "no.csv")
    text.config["choices"]["task"], text.preprocessing = "copy", {}
    with pytest.raises(
        ConfigError, match=r"one of copy: seqbench eval RUN --predictions FILE\.csv"
    ):
        forecasts(text, "no.csv")
    saved = SavedRun(trained("plain")[0])
    saved.preprocessing = {"columns": ["sales"], "mean": [0.0], "std": [1.0]}
    with pytest.raises(RunError, match="hold no scaler and columns that can be read"):
        forecasts(saved, "no.csv")
