"""No window leaks, scaling uses train only, series never mix, normalization is undone."""

import math
from datetime import datetime, timedelta

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbench.config.build import build
from seqbench.config.choices import read_choice
from seqbench.contracts.task import check_task
from seqbench.datasets.table import Table
from seqbench.errors import ConfigError, DataError
from seqbench.tasks.calendar_features import calendar_features
from seqbench.tasks.windows import SPLITS, split_rows, windows

START = datetime(2024, 2, 28, 22)


@pytest.fixture
def forecast(tmp_path):
    """Build the task of a table of columns; a list of texts or numbers each."""

    def made(columns, name="my.csv", **values):
        path = tmp_path / name
        rows = zip(*columns.values(), strict=True)
        lines = [",".join(columns), *(",".join(map(str, row)) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
        node = read_choice("task", "forecast_file") | {"path": str(path), "length": 6, "horizon": 4}
        given = {"batch_size": 8, "seed": 0, "data_dir": None}
        return build("task", {"task": node | values}, **given)

    return made


def hours(count):
    return [(START + timedelta(hours=i)).isoformat() for i in range(count)]


def waves(count, columns=2, seed=0):
    """Random walks with a season of four steps, rounded as the file holds them."""
    random = np.random.RandomState(seed)
    walk = random.randn(count, columns).cumsum(0) + 3 * (np.arange(count) % 4)[:, None]
    return np.round(walk, 3)


def scores(task, answer, split="test"):
    """The metrics of a split for `answer(batch)`, as the trainer adds them up."""
    sums, counts = {}, {}
    for batch in task.eval_batches(split):
        for name, (total, count) in task.metrics(answer(batch), batch).items():
            sums[name] = sums.get(name, 0) + float(total)
            counts[name] = counts.get(name, 0) + count
    return task.metrics_of({name: total / counts[name] for name, total in sums.items()})


def zeros(batch):
    return torch.zeros(len(batch.targets), batch.targets[0].numel())


sizes = st.lists(st.integers(60, 120), min_size=1, max_size=3)
splits = st.sampled_from([[0.7, 0.1, 0.2], [0.5, 0.25, 0.25], [30, 10, 12], [0.6, 0.2, 0.1]])


@settings(max_examples=60)
@given(sizes=sizes, splits=splits, length=st.integers(1, 20), horizon=st.integers(1, 6))
def test_no_window_leaks_into_another_split_or_series(sizes, splits, length, horizon):
    ends = np.cumsum(sizes).tolist()
    series = {str(i): slice(b, e) for i, (b, e) in enumerate(zip([0, *ends], ends, strict=False))}
    table = Table("t", (), np.empty((ends[-1], 0)), np.arange(ends[-1]), None, None, series, ())
    for name, own in series.items():
        rows = split_rows(table, own, splits)
        assert rows["train"].start == own.start
        assert rows["test"].stop <= own.stop
        assert all(a.stop == rows[b].start for a, b in zip(rows.values(), SPLITS[1:], strict=False))
        found = windows(table, name, rows, length, horizon)
        for split, origins in found.items():
            inside = rows[split]
            assert origins.min() - length + 1 >= own.start
            assert origins.min() + 1 >= inside.start
            assert origins.max() + horizon < inside.stop
            assert len(set(origins)) == len(origins)
        # All that training reads or is scored on is training rows.
        assert found["train"].min() - length + 1 == rows["train"].start
        # The windows that are scored do not depend on the look-back, and none is left out.
        for split in ("valid", "test"):
            first, end = rows[split].start - 1, rows[split].stop - horizon
            assert found[split].tolist() == [*range(first, end)]


def test_scaling_uses_the_training_rows_alone(forecast):
    data = waves(100)
    task = forecast({"t": hours(100), "a": data[:, 0], "b": data[:, 1]})
    np.testing.assert_allclose(task.features.mean, data[:70].mean(0), rtol=1e-12)
    np.testing.assert_allclose(task.features.std, data[:70].std(0), rtol=1e-12)
    data[70:] = 1e6
    other = forecast({"t": hours(100), "a": data[:, 0], "b": data[:, 1]}, "other.csv")
    assert (other.features.mean == task.features.mean).all()
    assert (other.features.std == task.features.std).all()
    for step in range(12):
        assert torch.equal(task.train_batch(step).inputs, other.train_batch(step).inputs)
    kept = task.preprocessing()
    assert kept["mean"] == task.features.mean.tolist()
    assert (kept["columns"], kept["targets"]) == (["a", "b"], ["a", "b"])


def test_a_window_is_of_one_series(forecast):
    names = [name for i in range(90) for name in ("x", "y", "z")[: 3 if i < 70 else 2]]
    days = [
        f"{datetime(2024, 1, 1) + timedelta(days=i):%Y-%m-%d}"
        for i in range(90)
        for _ in range(3 if i < 70 else 2)
    ]
    values = [{"x": 10, "y": 20, "z": 40}[name] for name in names]
    task = forecast(
        {"day": days, "shop": names, "sales": values, "by": values},
        group="shop",
        target="sales",
        normalize="none",
        known=["by"],
    )
    assert task.notes["series"] == 3
    batches = [task.train_batch(i) for i in range(task.steps_per_epoch)]
    for batch in [*batches, *task.eval_batches("valid"), *task.eval_batches("test")]:
        columns = [batch.inputs[..., i] for i in (0, 1, 2)]
        seen = torch.cat([*columns, batch.targets[..., 0]], 1)
        seen = seen * task.features.std[0] + task.features.mean[0]
        assert (seen - seen[:, :1]).abs().max() < 1e-3
    assert {round(float(v)) for v in seen[:, 0]} <= {10, 20, 40}


@pytest.mark.parametrize("missing", ["error", "mask"])
@pytest.mark.parametrize("normalize", ["none", "last", "window"])
def test_normalization_is_undone_in_the_answer(forecast, normalize, missing):
    data = waves(100).astype(object)
    if missing == "mask":
        data[[20, 50, 51, 85, 92], [0, 1, 1, 0, 1]] = ""
    columns = {"t": hours(100), "a": data[:, 0], "b": data[:, 1]}
    task = forecast(columns, normalize=normalize, missing=missing)
    plain = forecast(columns, normalize="none", missing=missing)

    def perfect(batch):
        if normalize == "none":
            return batch.targets.flatten(1)
        return ((batch.targets - batch.offset) / batch.scale).flatten(1)

    assert scores(task, perfect)["mse"] < 1e-12
    for batch, raw in zip(task.eval_batches("test"), plain.eval_batches("test"), strict=True):
        assert torch.equal(batch.targets, raw.targets)
        values, before = batch.inputs[..., :2].double(), raw.inputs[..., :2].double()
        seen = 1 - raw.inputs[..., 2:4] if missing == "mask" else torch.ones_like(before)
        assert (values[seen == 0] == 0).all()
        if normalize == "last" and missing == "error":
            assert (values[:, -1] == 0).all()
            assert torch.equal(batch.offset, raw.inputs[:, -1:, :2])  # to the last bit
        if normalize == "window":
            count = seen.sum(1)
            assert (values.sum(1) / count).abs().max() < 1e-5
            spread = before - (before.sum(1) / count)[:, None]
            expected = ((spread * seen).square().sum(1) / count + 1e-5).sqrt()
            torch.testing.assert_close(batch.scale[:, 0].double(), expected)
            torch.testing.assert_close(values * batch.scale + batch.offset * seen, before)
        assert torch.equal(batch.inputs[..., 2:], raw.inputs[..., 2:])


@pytest.mark.parametrize("missing", ["error", "mask"])
def test_naive_scores_are_those_of_forecasts_made_one_by_one(forecast, missing):
    data = waves(80)
    truth = data.copy()
    if missing == "mask":
        truth[[5, 30, 62, 70, 71, 75], [0, 1, 0, 1, 1, 0]] = np.nan
    cells = np.where(np.isnan(truth), "", data.astype(str))
    times = [(START + timedelta(hours=6 * i)).isoformat() for i in range(80)]  # four a day
    task = forecast({"t": times, "a": cells[:, 0], "b": cells[:, 1]}, missing=missing, horizon=6)
    scaled = (truth - task.features.mean) / task.features.std
    errors = {"train mean": [], "last value": [], "seasonal naive": []}
    for origin in task.origins["test"].tolist():
        past = scaled[: origin + 1]
        known = np.array(
            [
                [column[~np.isnan(column)][-1] for column in past[: i + 1].T]
                for i in range(5, len(past))
            ]
        )
        for step in range(1, 7):
            goal = scaled[origin + step]
            errors["train mean"].append(goal)
            errors["last value"].append(goal - known[-1])
            errors["seasonal naive"].append(goal - known[-4 + (step - 1) % 4])
    expected = {name: np.nanmean(np.square(found)) for name, found in errors.items()}
    assert task.naive == pytest.approx(expected)
    assert task.baseline == min(task.naive.values())
    # A model that answers 0 forecasts the last value where that is subtracted.
    last = forecast(
        {"t": times, "a": cells[:, 0], "b": cells[:, 1]},
        missing=missing,
        horizon=6,
        length=20,
        normalize="last",
    )
    assert scores(last, zeros)["mse"] == pytest.approx(expected["last value"], rel=1e-5)


def test_metrics_are_those_of_the_original_values(forecast):
    data = waves(100, 1)[:, 0]
    task = forecast({"t": hours(100), "load": data}, normalize="none", calendar=False)
    random = np.random.RandomState(1)
    origins = task.origins["test"].numpy()
    answers = random.randn(len(origins), 4).astype(np.float32)
    found = scores(task, lambda batch: torch.from_numpy(answers))
    truth = data[origins[:, None] + np.arange(1, 5)]
    guess = answers * task.features.std + task.features.mean
    error = guess - truth
    scale = np.abs(data[24:70] - data[:46]).mean()
    expected = {
        "mse": (error**2).mean() / task.features.std[0] ** 2,
        "mae": np.abs(error).mean() / task.features.std[0],
        "load_rmse": math.sqrt((error**2).mean()),
        "load_mae": np.abs(error).mean(),
        "smape": (200 * np.abs(error) / (np.abs(truth) + np.abs(guess))).mean(),
        "mase": np.abs(error).mean() / scale,
        "load_rmse_step_2": math.sqrt((error[:, 1] ** 2).mean()),
        "mase_step_4": np.abs(error[:, 3]).mean() / scale,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    assert len(found) == 6 * 5  # in all, and at the steps 1 to 4


def test_without_a_seasonal_difference_there_is_no_mase(forecast):
    columns = {"t": hours(90), "load": waves(90, 1)[:, 0], "constant": [5] * 90}
    assert "mase" in scores(forecast(columns, target="load"), zeros)
    assert not any("mase" in name for name in scores(forecast(columns), zeros))
    # A season has 24 rows.
    short = forecast(columns, target="load", splits=[24, 20, 46])
    assert not any("mase" in name for name in scores(short, zeros))


def test_a_missing_value_is_neither_read_nor_scored(forecast):
    data = waves(100).astype(object)
    data[[90, 93], [0, 1]] = ""
    columns = {"t": hours(100), "a": data[:, 0], "b": data[:, 1]}
    with pytest.raises(DataError, match=r"row 91 .*: a is missing; task.missing=mask"):
        forecast(columns)
    task = forecast(columns, missing="mask", normalize="none")
    (batch,) = task.eval_batches("test")
    assert batch.scored_count() == batch.targets.numel() - 8
    wrong = torch.where(batch.observed, batch.targets, 1e9).flatten(1).requires_grad_()
    assert task.loss(wrong, batch) == 0
    (wrong.flatten(1).sum() + task.loss(wrong + 1, batch)).backward()
    assert (wrong.grad.unflatten(1, (4, 2))[~batch.observed] == 1).all()
    everything = forecast(
        {"a": [1.0] * 70 + [""] * 30, "b": range(100)}, missing="mask", target="b"
    )
    assert everything.notes["test_windows"] == 17
    with pytest.raises(DataError, match="all targets of the valid split are missing"):
        forecast({"a": [*range(70), *[""] * 30]}, missing="mask")


def test_columns_known_ahead_are_read_ahead(forecast):
    data = waves(100)
    task = forecast(
        {"t": hours(100), "holiday": range(100), "a": data[:, 0]},
        target="a",
        known=["holiday"],
        normalize="none",
        calendar=False,
    )
    assert task.features.columns == ["a", "holiday"]
    same = forecast(
        {"t": hours(100), "holiday": range(100), "a": data[:, 0]},
        known="holiday",
        normalize="none",
        calendar=False,
    )
    assert torch.equal(same.series, task.series)
    for split in ("valid", "test"):
        for batch, at in zip(task.eval_batches(split), task.origins[split].split(256), strict=True):
            rows = at[:, None] + torch.arange(-5, 1)
            ahead = batch.inputs[..., 2] * task.features.std[1] + task.features.mean[1]
            torch.testing.assert_close(ahead.double(), rows.double() + 4, rtol=1e-5, atol=1e-4)
    with pytest.raises(ConfigError, match="'a' is a target, which is not known ahead"):
        forecast({"a": range(100)}, known=["a"], target="a")


def test_calendar_features_are_points_on_circles():
    times = [START + timedelta(hours=37 * i) for i in range(60)]
    names = ["hour", "weekday", "month"]
    found = calendar_features(np.array(times, "datetime64[us]"), names)
    phases = [[t.hour / 24, t.weekday() / 7, (t.month - 1) / 12] for t in times]
    angles = 2 * np.pi * np.array(phases)
    np.testing.assert_allclose(found, np.hstack([np.sin(angles), np.cos(angles)]), atol=1e-6)


def test_splits_at_dates_and_evaluation_of_some_windows(forecast):
    columns = {"t": hours(100), "a": waves(100)[:, 0]}
    task = forecast(columns, splits=["2024-03-01", "2024-03-02 12:00"])
    assert task.origins["valid"][0] + 1 == 26  # hours from START to the first of March
    assert task.origins["test"][0] + 1 == 62
    few = forecast(columns, splits=["2024-03-01", "2024-03-02 12:00"], eval_size=7)
    assert len(few.origins["test"]) == 7
    assert set(few.origins["test"].tolist()) < set(task.origins["test"].tolist())
    assert torch.equal(few.origins["train"], task.origins["train"])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"splits": [0.7, 0.2, 0.2]}, "task.splits must be three fractions"),
        ({"splits": [50, 50, 50]}, "three numbers of rows, at most 100"),
        ({"splits": ["2024-03-02", "2024-03-01"]}, "expected validation before test"),
        ({"splits": ["2024-03-02", "later"]}, "expected dates such as 2020-12-31"),
        ({"length": 0}, "task.length must be at least 1, not 0"),
        ({"target": ["a", "a"]}, "task.target must name columns, each once"),
        ({"target": "A"}, "no column 'A'"),
        ({"inputs": ["z"]}, "task.inputs: "),
        ({"path": None}, "no table is given: set task.path=my.csv"),
        ({"sha256": "0" * 64}, "differs from the file of the run"),
    ],
)
def test_wrong_settings_are_refused(forecast, values, said):
    with pytest.raises(ConfigError, match=said):
        forecast({"t": hours(100), "a": range(100)}, **values)


def test_columns_that_no_setting_names_may_be_broken(forecast):
    columns = {"t": hours(100), "a": range(100), "room": ["B12", *["7"] * 99]}
    with pytest.raises(DataError, match="row 1: room is 'B12', expected a number"):
        forecast(columns)
    assert forecast(columns, target="a", inputs=[]).notes["columns_not_read"] == "room"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"length": 68}, "the train split has 70 rows, expected at least 72"),
        ({"splits": [60, 3, 30]}, "the valid split has 3 rows, expected at least 4"),
    ],
)
def test_a_split_without_a_window_is_refused(forecast, values, said):
    with pytest.raises(DataError, match=said):
        forecast({"t": hours(100), "a": range(100)}, **values)


@pytest.mark.parametrize("missing", ["error", "mask"])
def test_the_contracts_of_a_task_hold(forecast, missing):
    data = waves(200, 3).astype(object)
    if missing == "mask":
        data[::7, 1] = ""
    columns = {"t": hours(200), "a": data[:, 0], "b": data[:, 1], "c": data[:, 2]}
    results = list(
        check_task(lambda seed: forecast(columns, missing=missing, target=["b", "a"], known=["c"]))
    )
    assert [(r.name, r.message) for r in results if not r.passed] == []
    assert len(results) == 8


# Published or computed elsewhere: train mean, last value, the value of a day before.
FACTS = {
    ("etth1", 96): (1.110, None, None),
    ("etth1", 336): (1.107, 1.330, 0.650),
    ("etth2", 336): (3.146, None, 0.532),
}


def test_naive_scores_of_ett_are_the_known_ones(real_data):
    for (name, horizon), known in FACTS.items():
        node = read_choice("task", name) | {"horizon": horizon, "normalize": "last"}
        task = build("task", {"task": node}, batch_size=32, seed=0, data_dir=str(real_data))
        for found, expected in zip(task.naive.values(), known, strict=True):
            assert expected is None or found == pytest.approx(expected, abs=6e-4)
        assert len(task.origins["test"]) == 2880 - horizon + 1
        if (name, horizon) != ("etth1", 336):
            continue
        found = scores(task, zeros)
        assert (found["mse"], found["mae"]) == pytest.approx((1.330, 0.746), abs=5e-4)
        # The published table leaves out the last incomplete batch of 32 windows.
        task.origins["test"] = task.origins["test"][: 2545 // 32 * 32]
        found = scores(task, zeros)
        assert (found["mse"], found["mae"]) == pytest.approx((1.323, 0.744), abs=5e-4)


@pytest.mark.parametrize("normalize", ["none", "last", "window"])
def test_predictions_are_in_the_unit_of_the_file(forecast, normalize):
    values = waves(80, 1)[:, 0]
    column = list(values)
    column[70] = "NA"
    task = forecast({"a": column}, target="a", normalize=normalize, missing="mask")
    batch = next(iter(task.eval_batches("test")))
    offset, scale = (0, 1) if batch.scale is None else (batch.offset, batch.scale)
    exact = ((batch.targets - offset) / scale).flatten(1)
    predicted, targets = task.scored_part(exact, batch)
    expected = np.stack([values[i + 1 : i + 5] for i in task.origins["test"].tolist()])
    missing = np.stack([np.arange(i + 1, i + 5) == 70 for i in task.origins["test"].tolist()])
    assert (targets.isnan().numpy() == missing[: len(targets)]).all()
    seen = ~missing[: len(targets)]
    for found in (predicted, targets):
        assert found.numpy()[seen] == pytest.approx(expected[: len(targets)][seen], abs=1e-4)
