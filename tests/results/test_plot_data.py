import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_factory import make_record, write_run

from seqbench.errors import ConfigError
from seqbench.results.cells import aggregate
from seqbench.results.metric import ranked_by
from seqbench.results.plots.data import (
    LARGEST,
    Point,
    best_along,
    curve_panels,
    front,
    point_panels,
    power_law,
)

POSITIVE = st.floats(1e-6, 1e6)
POINTS = st.lists(st.tuples(st.floats(0, 100), st.floats(-100, 100)), min_size=1, max_size=20)


@given(points=POINTS, direction=st.sampled_from(["min", "max"]))
def test_the_front_is_what_nothing_else_beats_at_its_cost(points, direction):
    def beats(a, b):
        no_worse = a[1] <= b[1] if direction == "min" else a[1] >= b[1]
        return a[0] <= b[0] and no_worse and a != b

    expected = {p for p in points if not any(beats(other, p) for other in points)}
    found = front(points, direction)
    assert found == sorted(expected)


@given(
    exponent=st.floats(-3, 3),
    factor=st.floats(1e-3, 1e3),
    xs=st.lists(st.floats(1, 1e4), min_size=2, max_size=8, unique_by=lambda x: round(math.log(x))),
)
def test_a_power_law_is_found_again(exponent, factor, xs):
    points = [(x, factor * x**exponent) for x in xs]
    law = power_law(points)
    assert law.exponent == pytest.approx(exponent, abs=1e-9)
    assert [law.at(x) for x in xs] == pytest.approx([y for _, y in points])
    assert law.half is None if len(xs) == 2 else law.half == pytest.approx(0, abs=1e-6)


def test_a_steep_power_law_far_from_one_is_found():
    points = [(x, 1e-5 * (x / 1e20) ** -20) for x in (1e20, 2e20, 4e20)]
    law = power_law(points)
    assert law.exponent == pytest.approx(-20)
    assert [law.at(x) for x, _ in points] == pytest.approx([y for _, y in points])


def test_the_interval_of_an_exponent_is_that_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    points = [(2.0 ** (i // 3), 1 + 0.3 * ((7 * i) % 5)) for i in range(12)]
    expected = stats.linregress([math.log(x) for x, _ in points], [math.log(y) for _, y in points])
    law = power_law(points)
    assert law.exponent == pytest.approx(expected.slope)
    assert law.half == pytest.approx(stats.t.ppf(0.975, 10) * expected.stderr)


@given(ys=st.lists(POSITIVE, min_size=3, max_size=6), shift=st.sampled_from([-0.01, 0.01]))
def test_no_other_exponent_is_nearer_in_logarithms(ys, shift):
    points = [(2.0**i, y) for i, y in enumerate(ys)]
    law = power_law(points)

    def distance(slope):
        # The best factor for a slope makes the differences zero on average.
        differences = [math.log(y) - slope * math.log(x) for x, y in points]
        mean = math.fsum(differences) / len(differences)
        return math.fsum((d - mean) ** 2 for d in differences)

    assert distance(law.exponent) < distance(law.exponent + shift)
    assert law.at(2) / law.at(1) == pytest.approx(2**law.exponent)


def test_of_several_scores_at_one_place_the_best_counts():
    (cell,) = aggregate([make_record()])
    points = [Point(cell, x, score, None) for x, score in [(2, 0.3), (1, 0.2), (2, 0.1)]]
    assert best_along(points, "min") == [points[1], points[2]]
    assert best_along(points, "max") == [points[1], points[0]]


# --------------------------------------------------------------------------- another metric


def with_recall(length, seed, recall, value=0.01):
    record = make_record("copy", "tcn", seed, value=value, task__length=length)
    metrics = {"cross_entropy": value, "recall_accuracy": recall}
    return replace(record, metrics={"valid": metrics, "test": metrics})


def test_another_metric_is_averaged_over_seeds_and_has_no_bounds():
    records = [
        with_recall(t, seed, 1 - t / 1000 - 0.1 * seed) for t in (100, 200) for seed in (0, 1)
    ]
    (panel,) = point_panels(aggregate(ranked_by(records, "recall_accuracy")), "length").items()
    column, points = panel
    assert (column.metric, column.split, column.direction) == ("recall_accuracy", "test", "max")
    assert column.length is None
    assert [(point.x, point.score) for point in points] == [
        (100, pytest.approx(0.85)),
        (200, pytest.approx(0.75)),
    ]
    assert {point.cell.baseline for point in points} == {None}


def test_runs_without_the_metric_have_no_panel_and_its_own_runs_stay():
    records = [with_recall(100, 0, 0.9), make_record("adding")]
    panels = point_panels(aggregate(ranked_by(records, "recall_accuracy")), "seconds")
    assert [column.task for column in panels] == ["copy"]
    assert ranked_by(records[:1], "cross_entropy") == records[:1]


def test_a_metric_that_nobody_has_is_named_with_those_there_are():
    message = "no run has a metric 'recall' (there are: cross_entropy, recall_accuracy)"
    with pytest.raises(ConfigError) as error:
        ranked_by([with_recall(100, 0, 0.9)], "recall")
    assert str(error.value) == message


# ------------------------------------------------------------------------- places along an axis


@pytest.mark.parametrize(
    ("x", "place"),
    [
        ("seconds", 123.4),
        ("parameters", 70369),
        ("compute", 6 * 70369 * 5000 * 32 * 600),
        ("length", 600),
        ("model.kernel_size", 8),
        ("optimizer.lr", 0.004),
    ],
)
def test_a_cell_stands_at_its_size_its_cost_or_a_setting(x, place):
    ((point,),) = point_panels(aggregate([make_record()]), x).values()
    assert (point.x, point.score, point.bar) == (place, 1e-4, None)


def test_what_varies_along_the_axis_is_no_panel_and_all_else_is():
    records = [
        make_record("copy", budget=budget, task__length=length)
        for length in (100, 200)
        for budget in ("full", "quick")
    ]
    by_length = point_panels(aggregate(records), "length")
    assert sorted((c.budget, len(points)) for c, points in by_length.items()) == [
        ("full", 2),
        ("quick", 2),
    ]
    assert len(point_panels(aggregate(records), "seconds")) == 4


def test_a_model_that_started_from_other_weights_keeps_its_name_beside_the_model_itself():
    start = {"init_sha256": "ab" * 32, "init_run": "0123456789ab", "init_from": "best.safetensors"}
    records = [
        make_record("smnist", "gru", task__train_size=size, model__hidden_size=width, **parent)
        for size in (100, 1000)
        for width, parent in ((8, {}), (9, {}), (8, start))
    ]
    ((_, points),) = point_panels(aggregate(records), "task.train_size").items()
    labels = [(point.cell.label, point.x) for point in points]
    assert sorted(labels) == [
        *[("gru", 100), ("gru", 100), ("gru", 1000), ("gru", 1000)],
        *[("gru (from=01234567)", 100), ("gru (from=01234567)", 1000)],
    ]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ("model.kernel_siz", "did you mean 'model.kernel_size'"),
        ("model.dropout_kind", "no run with a score has a number under 'model.dropout_kind'"),
        ("seed", "differs between seeds"),
        ("budget", "no run with a score has a number under 'budget'"),
    ],
)
def test_what_is_no_place_is_refused(x, message):
    with pytest.raises(ConfigError, match=message):
        point_panels(aggregate([make_record(seed=seed) for seed in (0, 1)]), x)


def test_a_score_that_no_axis_can_hold_is_left_out():
    records = [make_record(value=LARGEST * 10), make_record(model="gru", value=1.0)]
    (points,) = point_panels(aggregate(records), "seconds").values()
    assert [point.cell.model for point in points] == ["gru"]


# --------------------------------------------------------------------------------------- curves


def run_with_events(folder, record, events):
    place = write_run(folder, record)
    (place / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return {record.run_id: place}


def valid(step, **metrics):
    return {"step": step, "split": "valid", **metrics}


@pytest.mark.parametrize(
    ("events", "metric", "split", "value"),
    [
        ([{"step": 1, "split": "train", "mse": 9.0}, valid(1, mse=0.4)], None, "valid", 0.4),
        ([{"step": 1, "split": "train", "mse": 9.0}, valid(1, mse=0.4)], "mse", "valid", 0.4),
        ([{"step": 1, "split": "train", "loss": 0.5}, valid(1, mse=0.4)], "loss", "train", 0.5),
        ([{"step": 1, "split": "test", "mse": 0.4}], None, "test", 0.4),
    ],
)
def test_a_curve_is_validations_where_it_has_the_metric(tmp_path, events, metric, split, value):
    record = make_record()
    folders = run_with_events(tmp_path, record, events)
    ((line,),) = curve_panels(aggregate([record]), folders, metric, "steps").values()
    assert (line.split, line.band.median) == (split, (value,))


def test_epochs_are_shares_of_the_steps_that_the_run_took(tmp_path):
    record = replace(make_record(trainer__epochs=4), steps=200)
    folders = run_with_events(tmp_path, record, [valid(100, mse=0.4), valid(200, mse=0.3)])
    ((line,),) = curve_panels(aggregate([record]), folders, None, "epochs").values()
    assert line.xs == (2.0, 4.0)


@pytest.mark.parametrize(
    ("changes", "metric", "x", "message"),
    [
        ({"epochs": None}, None, "epochs", r"trainer\.epochs"),
        ({"stop_when_solved": True}, None, "epochs", r"trainer\.epochs"),
        ({}, "los", "steps", r"no run has a curve of 'los' \(there are: mse\)"),
        ({}, None, "seconds", "over steps or epochs, not 'seconds'"),
    ],
)
def test_a_curve_that_is_not_there_is_refused(tmp_path, changes, metric, x, message):
    record = make_record(**{f"trainer__{key}": value for key, value in changes.items()})
    folders = run_with_events(tmp_path, record, [valid(1, mse=0.4)])
    with pytest.raises(ConfigError, match=message):
        curve_panels(aggregate([record]), folders, metric, x)
