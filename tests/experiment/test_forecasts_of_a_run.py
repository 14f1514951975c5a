"""A forecasting run keeps a few forecasts of its test, to be drawn, and writes all of them."""

import csv
import json
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest
from typer.testing import CliRunner

from seqbench.cli.main import app
from seqbench.config.compose import compose
from seqbench.errors import ConfigError
from seqbench.experiment import run
from seqbench.experiment.saved_run import SavedRun
from seqbench.results.collect import collect
from seqbench.results.report.content import build_content
from seqbench.runs.forecasts import read_forecasts
from seqbench.runs.run import Run
from seqbench.tasks.naive import filled_forward

HORIZON, SEASON = 6, 4
WORDS = ["task=forecast_file", "task.length=8", f"task.horizon={HORIZON}", "task.normalize=none"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train on two shops with two targets and missing values; return record, folder and rows."""
    path, rows = tmp_path_factory.mktemp("sales"), {}
    random = np.random.RandomState(0)
    with (path / "sales.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["time", "shop", "sales", "price"])
        for shop, count in {"a": 90, "b": 120}.items():
            for i in range(count):
                time = datetime(2024, 1, 1) + timedelta(hours=6 * i)
                sales = "" if i % 7 == 3 else f"{1000 + 9 * (i % SEASON) + random.rand():.4f}"
                row = [time.isoformat(sep=" "), shop, sales, f"{random.rand():.4f}"]
                rows[tuple(row[:2])] = row[2:]
                writer.writerow([row[0], shop, *row[2:]])
    config = compose(
        [
            *[*WORDS, f"task.path={path / 'sales.csv'}", "task.target=[sales,price]"],
            *["task.group=shop", "task.missing=mask", "model=gru", "model.hidden_size=4"],
            *["trainer.steps=4", "trainer.batch_size=8", "threads=1", f"output_dir={path}"],
        ]
    )
    return run(config), Run.of(config), rows


def invoke(*words):
    return CliRunner().invoke(app, list(map(str, words)))


def test_windows_have_the_values_of_the_file_and_a_seasonal_naive_forecast(trained):
    record, folder, rows = trained
    windows = read_forecasts(folder.forecasts_path)
    assert [window.name for window in windows] == ["first", "median error", "worst"]
    assert windows[2].error >= windows[1].error
    assert windows[2].error >= record.metrics["test"]["mse"]
    assert "forecasts" not in folder.record_path.read_text()
    for window in windows:
        assert window.naive == "seasonal naive"
        times = [time.replace("T", " ") for time in window.times]
        for i, target in enumerate(("sales", "price")):
            shown = window.lines[target]
            known = [float(rows[time, window.series][i] or "nan") for time in times]
            found = np.array(shown.past + shown.truth, float)
            np.testing.assert_allclose(found, known, atol=1e-3)
            origin = len(shown.past)
            # A missing value of the season is the last known one before it.
            season = filled_forward(found[:origin, None])[-SEASON:, 0]
            np.testing.assert_array_equal(np.array(shown.naive, float), np.resize(season, HORIZON))
            assert len(shown.forecast) == HORIZON


def test_eval_writes_a_row_per_time_step_and_window(trained, tmp_path):
    record, folder, rows = trained
    file = tmp_path / "predictions.csv"
    assert invoke("eval", folder.folder, "--predictions", file).exit_code == 0
    with file.open() as table:
        found = list(csv.DictReader(table))
    assert list(found[0]) == [
        *["index", "series", "origin", "step", "time", "target_sales", "target_price"],
        *["prediction_sales", "prediction_price"],
    ]
    assert len(found) == record.notes["test_windows"] * HORIZON
    for row in found:
        sales, price = rows[row["time"], row["series"]]
        assert (row["target_sales"] == "") == (sales == "")
        assert float(row["target_price"]) == pytest.approx(float(price), abs=1e-4)
        ahead = datetime.fromisoformat(row["time"]) - datetime.fromisoformat(row["origin"])
        assert ahead == int(row["step"]) * timedelta(hours=6)
    errors = [abs(float(r["target_price"]) - float(r["prediction_price"])) for r in found]
    assert np.mean(errors) == pytest.approx(record.metrics["test"]["price_mae"], rel=1e-3)
    # The windows to draw are among them.
    first = read_forecasts(folder.forecasts_path)[0].lines["price"].forecast
    assert [float(row["prediction_price"]) for row in found[:HORIZON]] == pytest.approx(first)


def test_an_older_run_gets_its_forecasts_by_eval_and_they_are_drawn(trained, tmp_path):
    _, folder, _ = trained
    before = folder.forecasts_path.read_bytes()
    folder.forecasts_path.unlink()
    words = ("plot", folder.folder, "--kind", "forecast", "-o", tmp_path / "plot.svg")
    assert "older ones after 'seqbench eval RUN'" in str(invoke(*words).exception)
    assert invoke("eval", folder.folder).exit_code == 0
    assert folder.forecasts_path.read_bytes() == before
    assert invoke(*words).exit_code == 0
    svg = (tmp_path / "plot.svg").read_text()
    assert all(f"<!-- {text}" in svg for text in ("truth", "seasonal naive", "forecast", "price"))
    # A run is also named by its id.
    words = ("plot", folder.run_id, *words[2:], "--output-dir", folder.folder.parents[3])
    assert invoke(*words).exit_code == 0
    found = collect([folder.folder])
    (page,) = build_content(found.records, [], found.folders)["runs"]
    assert [shown["target"] for shown in page["forecasts"]] == ["sales", "price"] * 3
    assert len(page["forecasts"][0]["times"]) == 8 + HORIZON


@pytest.mark.parametrize(
    "change",
    [
        lambda windows: windows[0].pop("times"),
        lambda windows: windows[0]["times"].pop(),
        lambda windows: windows[0]["lines"]["sales"].update(truth="a" * HORIZON),
        lambda windows: windows[0]["lines"].pop("sales"),
        lambda windows: windows.clear(),
    ],
)
def test_a_damaged_file_counts_as_none(trained, tmp_path, change):
    windows = json.loads(trained[1].forecasts_path.read_text())
    change(windows)
    (tmp_path / "forecasts.json").write_text(json.dumps(windows))
    assert read_forecasts(tmp_path / "forecasts.json") == []


def test_a_window_is_chosen_by_its_number_or_the_first_time_of_its_horizon(trained, tmp_path):
    _, folder, _ = trained
    first, *_ = read_forecasts(folder.forecasts_path)
    saved = SavedRun(folder.folder)
    (found,) = saved.forecast_window("0")
    assert found == replace(first, name="window 0")
    # Each series has this time once; the windows of the first series come first.
    (again,) = saved.forecast_window(first.times[-HORIZON])
    assert again.lines == first.lines
    for typed in ("999", "2024-01-01", "soon", "-1"):
        with pytest.raises(ConfigError, match=r"--window: expected 0 to \d+.* got '"):
            saved.forecast_window(typed)
    words = ["plot", folder.folder, "-o", tmp_path / "f.png", "--window", "3"]
    done = invoke(*words, "--kind", "forecast")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "f.png").stat().st_size > 1000
    assert "--window is for --kind forecast" in str(invoke(*words).exception)
