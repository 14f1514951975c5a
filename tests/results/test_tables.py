import csv
import io
import json
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from record_factory import make_record

from seqbench.errors import ConfigError
from seqbench.results.cells import aggregate
from seqbench.results.tables import export
from seqbench.results.tables.comparison import build_table
from seqbench.results.tables.markup import RENDERERS
from seqbench.results.tables.table import FACTOR, Entry, Table
from seqbench.runs.record import Record


def build(records: list[Record], paper: str | None = None) -> Table:
    return build_table(aggregate(records), paper)


def entries(table: Table, label: str) -> tuple[Entry | None, ...]:
    (row,) = [row for row in table.rows if row.label == label]
    return row.entries


def entry(table: Table, label: str, column: int = 0) -> Entry:
    found = entries(table, label)[column]
    assert found is not None
    return found


def seeds(*values: float | None, **changes) -> list[Record]:
    """Return a record for each score; `None` gives one that diverged."""
    return [
        make_record(
            seed=seed, value=v, status="completed" if v is not None else "diverged", **changes
        )
        for seed, v in enumerate(values)
    ]


def test_models_down_tasks_across_and_known_bounds_below():
    smnist = make_record("smnist", "lstm", value=0.98765)
    table = build([make_record(), smnist, make_record(budget="quick", task__length=200)])
    assert [(str(column), column.name) for column in table.columns] == [
        ("adding T=200 · MSE ↓ (quick)", "adding"),
        ("adding T=600 · MSE ↓ (full)", "adding"),
        ("smnist T=784 · accuracy % ↑ (full)", "smnist"),
    ]
    values = {row.label: [e and e.value for e in row.entries] for row in table.rows}
    assert values == {
        "lstm": [None, None, "98.8"],
        "tcn": ["1.00e-4", "1.00e-4", None],
        "without memory": ["0.167", "0.167", "10.0"],
        "best possible": ["0", "0", None],
    }
    assert [row.label for row in build([smnist]).rows] == ["lstm", "without memory"]


def test_naive_forecasts_are_below_and_a_model_that_does_not_beat_them_is_marked():
    naive = {"train mean": 1.1, "last value": 0.5}
    records = [
        replace(make_record(model=model, value=value), naive=naive, baseline=0.5, optimum=None)
        for model, value in {"gru": 0.7, "lstm": 0.5, "tcn": 0.49}.items()
    ]
    table = build([*records, make_record("smnist", "lstm", value=0.9)])
    values = {row.label: [e and e.value for e in row.entries] for row in table.rows if row.bound}
    assert values == {
        "without memory": [None, "10.0"],
        "train mean": ["1.10", None],
        "last value": ["0.500", None],
    }
    assert [entry(table, model).marks for model in ("gru", "lstm", "tcn")] == ["¹", "¹", ""]
    assert "¹ no better than the last value" in table.notes


def test_a_model_that_does_not_beat_a_predictor_without_memory_is_marked():
    values = {"lstm": 0.172, "tcn": 0.1}
    table = build([make_record(model=model, value=value) for model, value in values.items()])
    assert [entry(table, model).marks for model in values] == ["¹", ""]
    assert "¹ no better than a predictor without memory" in table.notes


def test_a_column_names_the_dataset_unless_the_task_does():
    of = [make_record("ucr", task__dataset="GunPoint"), make_record("etth1", task__dataset="etth1")]
    titles = [str(column) for column in build(of).columns]
    assert titles == ["etth1 T=600 · MSE ↓", "ucr T=600 [dataset=GunPoint] · MSE ↓"]


def test_what_a_model_reads_tells_models_apart_and_not_columns():
    """Look-back, normalization and pool change the answer, and not what is asked."""
    records = [
        make_record("ucr", "gru", task__pool=pool, task__dataset="GunPoint")
        for pool in ("last", "mean")
    ]
    records += [
        replace(make_record("etth1", "gru", task__horizon=96, task__length=n), length=n)
        for n in (96, 336)
    ]
    table = build([replace(record, data={}) for record in records])
    assert [column.task for column in table.columns] == [
        "etth1 [horizon=96]",
        "ucr T=600 [dataset=GunPoint]",
    ]
    assert [row.label for row in table.rows][:4] == [
        *("gru (length=336)", "gru (length=96)", "gru (pool=last)", "gru (pool=mean)"),
    ]


def test_a_column_names_the_horizon_of_a_forecast():
    one = make_record("adding", task__horizon=96)
    assert str(build([one]).columns[0]) == "adding [horizon=96] · MSE ↓"
    two = build([one, make_record("adding", task__horizon=192)])
    assert [column.task for column in two.columns] == [
        "adding [horizon=96]",
        "adding [horizon=192]",
    ]


TWICE = [make_record(), replace(make_record(), run_id="f" * 12)]


@pytest.mark.parametrize(
    ("records", "number", "n", "flags"),
    [
        (seeds(0.1, 0.11, 0.12), "0.110 ± 0.025", 3, ()),
        (seeds(0.1), "0.100", 1, ("n=1",)),
        (seeds(0.1, 1.1), "0.600", 2, ("n=2",)),
        (seeds(0.1, None), "0.100", 1, ("n=1", "1 diverged")),
        ([*seeds(None), make_record(seed=1, status="failed")], "-", 0, ("1 diverged", "1 failed")),
        (seeds(1e-4, 0.16, 1e-4), f"0.00117 {FACTOR} 39392", 3, ("2 of 3 solved",)),
        (TWICE, "1.00e-4", 2, ("n=2", "a seed counts twice")),
    ],
)
def test_a_mean_comes_with_its_interval_or_what_is_missing(records, number, n, flags):
    table = build(records)
    found = entry(table, "tcn")
    assert (found.number, found.n, found.flags) == (number, n, flags)
    assert ("fewer than 3 seeds give no interval" in table.notes) == (0 < n < 3)
    usual = any("n=3 seeds where no n is given" in note for note in table.notes)
    assert usual == (n == 3)


def test_an_unusual_number_of_seeds_is_said():
    records = [*seeds(1, 1, 1, 1), *seeds(1, 1, 1, 1, model="gru"), *seeds(1, 1, 1, model="lstm")]
    table = build(records)
    assert entry(table, "lstm").flags == ("n=3",)
    assert entry(table, "gru").flags == ()
    assert build(seeds(None)).columns[0].measure == "no score"


@pytest.mark.parametrize(
    ("tcn", "lstm", "best"),
    [
        (seeds(0.2, 0.3), seeds(0.1, 0.2, model="lstm"), "lstm"),
        (
            seeds(0.1, 0.2, task="smnist", model="gru"),
            seeds(0.2, 0.3, task="smnist", model="lstm"),
            "lstm",
        ),
        (seeds(0.2, 0.3), seeds(0.1, model="lstm"), None),
        ([*seeds(0.2, 0.3), *seeds(0.1, model="gru")], seeds(0.3, 0.4, model="lstm"), None),
        ([*seeds(0.2, 0.3), *seeds(0.5, model="gru")], seeds(0.3, 0.4, model="lstm"), "tcn"),
        (seeds(0.2, 0.3), [], None),
        (seeds(0.1, 0.1, None), seeds(0.2, 0.3, model="lstm"), None),
        (seeds(0.1, 0.2), seeds(0.2, 0.3, model="lstm", trainer__epochs=1), None),
        (
            seeds(0.2, 0.3, trainer__epochs=1),
            seeds(0.1, 0.2, model="lstm", trainer__epochs=1),
            "lstm",
        ),
    ],
)
def test_the_best_of_several_means_that_compare_is_marked(tcn, lstm, best):
    rows = [row for row in build(tcn + lstm).rows if not row.bound]
    assert [row.label for row in rows if row.entries[0].best] == ([best] if best else [])


def test_older_code_is_marked_unless_all_of_it_is_older():
    table = build([make_record(seed=0), make_record(seed=1, source="older"), make_record("copy")])
    assert [e and e.marks for e in entries(table, "tcn")] == ["†", ""]
    assert any(note.startswith("† runs with older code") for note in table.notes)
    table = build([make_record(seed=0, source="older"), make_record("copy", source="older")])
    assert [e and e.marks for e in entries(table, "tcn")] == ["", ""]
    assert any(note.startswith("all runs with older code") for note in table.notes)


def test_budget_and_protocol_stand_in_the_header_where_they_differ_and_below_where_not():
    table = build([make_record(), make_record(protocol="paper")])
    assert [c.measure for c in table.columns] == ["MSE ↓ (ours)", "MSE ↓ (paper)"]
    assert "budget full" in table.notes
    assert "budget full, protocol ours" in build([make_record()]).notes


def test_variants_of_a_model_have_rows_of_their_own():
    table = build([make_record(), make_record(model__kernel_size=7), make_record("copy")])
    labels = [row.label for row in table.rows if not row.bound]
    assert labels == ["tcn", "tcn (kernel_size=7)", "tcn (kernel_size=8)"]


def test_published_numbers_stand_beside_measured_ones_with_remarks():
    records = [
        make_record(),
        make_record(model="llama"),
        make_record("copy", protocol="paper", parameters=12530),
        make_record("parity"),  # not in the paper
    ]
    table = build(records, paper="tcn2018")
    assert [str(c) for c in table.columns if c.beside] == ["published · tcn2018"] * 2
    assert [c.beside for c in table.columns] == [False, True, False, True, False]
    assert entry(table, "tcn", 1) == Entry("5.8e-5", marks="¹")
    assert entries(table, "llama")[1] is None
    assert entry(table, "tcn", 3) == Entry("3.5e-5")
    assert "¹ here protocol ours instead of paper" in table.notes
    with pytest.raises(ConfigError, match="no paper named"):
        build([make_record()], paper="nobody1999")


def test_models_that_seqbench_lacks_are_rows_above_the_bounds():
    records = [
        make_record("ucr", "tcn", seed, 0.9, task__dataset=name, baseline=0.5)
        for name in ("GunPoint", "OSULeaf")
        for seed in range(3)
    ]
    table = build(records, paper="fawaz2019")
    models = [row.label for row in table.rows if not row.bound]
    assert models == ["tcn", "mlp", "fcn", "resnet"]
    assert entries(table, "fcn") == (None, Entry("100.0"), None, Entry("97.7"))


def test_a_published_baseline_stands_beside_the_measured_one():
    naive = {"last value": 1.29, "train mean": 1.1}
    [run] = seeds(0.5, task="etth1", task__horizon=96, task__target="all", protocol="code")
    table = build([replace(run, naive=naive, length=336)], paper="ltsf2023")
    found = {row.label: row.entries for row in table.rows if row.bound}
    assert found["last value"] == (Entry("1.29"), Entry("1.295"))
    assert found["train mean"] == (Entry("1.10"), None)
    assert "last_value" not in [row.label for row in table.rows]


def test_equal_remarks_are_one_note():
    records = [make_record(model=m, trainer__epochs=1) for m in ("tcn", "lstm")]
    table = build([*records, make_record(model="gru")])
    marks = {row.label: row.entries[0].marks for row in table.rows if not row.bound}
    assert marks == {"gru": "", "lstm": "¹", "tcn": "¹"}
    assert table.notes[-1] == "¹ epochs=1 instead of epochs=10"
    beside = build([*records, make_record(model="gru")], paper="tcn2018")
    assert entry(beside, "tcn", 1).marks == ""  # the measured number has the mark
    assert beside.notes[-1] == "¹ epochs=1 instead of epochs=10"
    assert "published scores: protocol paper" in beside.notes


def test_several_remarks_on_a_number_are_apart():
    chance = seeds(0.17, 0.17, 0.17, trainer__epochs=1)
    table = build([*chance, *seeds(0.1, 0.1, 0.1, model="gru")])
    assert entry(table, "tcn").marks == "¹,²"


def test_a_mean_that_is_printed_as_the_baseline_does_not_beat_it():
    note = "¹ no better than a predictor without memory"
    assert note in build(seeds(0.166_664, 0.166_665, 0.166_666)).notes
    assert note not in build(seeds(0.1658, 0.1657, 0.1659)).notes


def test_an_amount_that_a_label_says_is_no_footnote():
    table = build([make_record(trainer__epochs=epochs) for epochs in (1, 15)])
    labels = [row.label for row in table.rows if not row.bound]
    assert labels == ["tcn (epochs=1)", "tcn (epochs=15)"]
    assert [entry(table, label).marks for label in labels] == ["", ""]
    assert not [note for note in table.notes if "instead of" in note]
    started = make_record(init_sha256="ab" * 32)
    assert "¹ started from other weights" not in build([started]).notes


def test_no_cells_are_an_empty_table():
    assert build([]) == Table("Test scores", (), (), ())


def exported(records: list[Record], paper: str | None = None) -> list[dict]:
    return export.rows_of(aggregate(records), paper)


def test_an_export_has_a_row_for_each_cell_and_rounds_nothing():
    records = seeds(0.9, 0.9 + 1 / 300, 0.9 + 2 / 300, None, task="smnist", model="gru")
    records.append(make_record("smnist", "gru", seed=4, source="older", status="failed"))
    (row,) = exported(records, "tcn2018")
    expected = {"n": 3, "failed": 1, "diverged": 1, "older_code": 1, "min": 0.9, "solved": None}
    expected |= {"median": 0.9 + 1 / 300, "metric": "accuracy", "direction": "max"}
    expected |= {"published": 0.962, "not_like_for_like": "protocol ours instead of paper"}
    expected |= {"run_ids": [record.run_id for record in records]}
    assert {name: row[name] for name in expected} == expected
    assert row["mean"] == pytest.approx(0.9 + 1 / 300, abs=1e-15)
    assert row["seconds"] == pytest.approx(123.4)
    assert row["sd"] == pytest.approx(1 / 300)


def test_an_exported_mean_does_not_depend_on_the_other_cells():
    alone = exported(seeds(1e-6, 3e-6, model="tcn"))
    rivals = [*seeds(1e-6, 3e-6, model="tcn"), *seeds(0.1, 0.2, model="gru")]
    assert any(cell.log for cell in aggregate(rivals)), "the table shows geometric means"
    both = {row["model"]: row for row in exported(rivals)}
    assert both["tcn"] | {"standing": None} == alone[0] | {"standing": None}
    assert both["tcn"]["mean"] == pytest.approx(2e-6)
    assert both["tcn"]["geometric_mean"] == pytest.approx(3**0.5 * 1e-6)
    (accuracies,) = exported(seeds(0.9, 0.8, task="smnist"))
    assert accuracies["geometric_mean"] is None


def test_json_and_csv_have_the_same_rows():
    rows = exported([*seeds(1e-4, 1e-4), make_record("copy", "gru", status="failed")])
    objects = json.loads(export.to_json(rows))
    lines = list(csv.DictReader(io.StringIO(export.to_csv(rows))))
    assert [list(obj) for obj in objects] == [list(line) for line in lines]
    assert [(obj["task"], obj["mean"]) for obj in objects] == [("adding", 1e-4), ("copy", None)]
    assert [(line["task"], line["mean"]) for line in lines] == [("adding", "0.0001"), ("copy", "")]
    assert lines[0]["run_ids"].split() == objects[0]["run_ids"] == rows[0]["run_ids"]
    names = [field.name for field in fields(export.Line)]
    assert list(objects[0])[: len(names)] == names
    assert json.loads(export.to_json([])) == []
    assert export.to_csv([]).strip().split(",") == names


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@sum", "\t=1", "\r=1"])
def test_no_csv_cell_is_a_formula(name):
    rows = exported([replace(make_record(), model=name, budget=name)])
    (row,) = csv.DictReader(io.StringIO(export.to_csv(rows)))
    assert row["model"].startswith("'")
    assert row["budget"].startswith("'")


NAMES = st.text(max_size=12)


@settings(max_examples=50)
@given(NAMES, NAMES, NAMES, st.floats(allow_nan=False, allow_infinity=False), NAMES)
def test_any_names_and_values_can_be_written(task, model, budget, value, metric):
    record = make_record(value=abs(value))
    assert record.score is not None
    score = replace(record.score, metric=metric)
    record = replace(record, task=task, model=model, budget=budget, score=score)
    records = [record, make_record()]
    for render in RENDERERS.values():
        render(build(records, "tcn2018")).encode("utf-8")
    rows = exported(records)
    assert len(json.loads(export.to_json(rows))) == len(rows)
    assert len(export.to_csv(rows).splitlines()) == len(rows) + 1


def test_models_of_different_size_on_a_task_are_named():
    def said(*records):
        return [note for note in build(records).notes if "parameters" in note]

    tcn = make_record("copy", "tcn", parameters=12_530)
    similar = make_record("copy", "gru", parameters=13_700)
    large = make_record("copy", "llama", parameters=72_000)
    alone = make_record("smnist", "lstm", parameters=700_000)
    unknown = make_record("copy", "rnn", parameters=None, status="failed")
    assert said(tcn, alone, unknown) == []
    within = "models of similar size (parameters within 10%)"
    assert said(tcn, similar, alone, unknown) == [within]
    apart = "copy T=1000: 12,530 (tcn) to 72,000 (llama)"
    assert said(tcn, similar, large) == [f"models of different size, in parameters: {apart}"]
    of_adding = [make_record("adding", model, parameters=70_000) for model in ("tcn", "gru")]
    assert said(tcn, large, *of_adding) == [f"{within}, except on {apart}"]
    # Sizes compare over protocols and budgets, too.
    other = [replace(large, protocol="code", run_id="b" * 12), replace(large, budget="quick")]
    assert said(tcn, similar, *other) == [f"models of different size, in parameters: {apart}"]
    assert not [
        n for n in build_table(aggregate([tcn, large]), show=["parameters"]).notes if apart in n
    ]


def test_a_note_names_the_tasks_whose_sizes_differ_most():
    records = [
        make_record(task, model, parameters=10_000 * (1 + k * (model == "gru")))
        for k, task in enumerate(("adding", "copy", "smnist", "pmnist", "char_ptb"), start=1)
        for model in ("tcn", "gru")
    ]
    (note,) = [note for note in build(records).notes if "parameters" in note]
    assert [part.split(" T=")[0] for part in note.partition("parameters: ")[2].split("; ")] == [
        "char_ptb",
        "pmnist",
        "smnist",
        "and on 2 more tasks",
    ]


def test_differences_to_a_model_are_paired_over_shared_seeds():
    tcn, gru = seeds(0.1, 0.2, 0.3), seeds(0.15, 0.26, 0.34, 9.0, model="gru")
    table = build_table(aggregate([*tcn, *gru[:3], gru[3]]), against="tcn")
    assert [header.task for header in table.columns] == ["adding T=600", "against tcn"]
    assert entries(table, "tcn")[1] is None
    found = entry(table, "gru", 1)
    assert (found.number, found.flags, found.log) == ("+0.0500 ± 0.0248", (), False)
    decades = [*seeds(1e-5, 2e-5, 4e-5), *seeds(1e-3, 4e-3, 4e-3, model="lstm")]
    ratio = entry(build_table(aggregate(decades), against="tcn"), "lstm", 1)
    assert (ratio.value, ratio.log) == ("126", True)
    with pytest.raises(ConfigError, match=r"no run of a model 'tnc' \(did you mean 'tcn'\?\)"):
        build_table(aggregate(tcn), against="tnc")
