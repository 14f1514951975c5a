import csv
import io
import json
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from record_factory import SOURCE, make_record

from seqbench.errors import ConfigError
from seqbench.results.cells import aggregate
from seqbench.results.tables import export
from seqbench.results.tables.comparison import Entry, Table, build_table
from seqbench.results.tables.markup import escape_markdown, markdown
from seqbench.runs.record import Record


def build(records: list[Record], paper: str | None = None) -> Table:
    return build_table(aggregate(records), SOURCE, paper)


def entries(table: Table, label: str) -> tuple[Entry | None, ...]:
    (row,) = [row for row in table.rows if row.label == label]
    return row.entries


def entry(table: Table, label: str, column: int = 0) -> Entry:
    found = entries(table, label)[column]
    assert found is not None
    return found


def test_models_down_tasks_across():
    table = build([make_record(), make_record("smnist", "lstm", value=0.98765)])
    assert [str(column) for column in table.columns] == [
        "adding T=600 · MSE ↓ (full)",
        "smnist T=784 · accuracy % ↑ (full)",
    ]
    assert [row.label for row in table.rows] == ["lstm", "tcn", "without memory", "best possible"]
    assert entries(table, "lstm")[0] is None
    assert entry(table, "lstm", 1).value == "98.8"
    assert [e and e.value for e in entries(table, "without memory")] == ["0.167", "10.0"]
    assert [e and e.value for e in entries(table, "best possible")] == ["0", None]


def test_bounds_that_nobody_knows_have_no_row():
    table = build([make_record("smnist", value=0.9)])
    assert [row.label for row in table.rows] == ["tcn", "without memory"]


def test_an_interval_stands_beside_three_seeds_and_more():
    table = build([make_record(seed=seed, value=0.1 + seed / 100) for seed in range(3)])
    found = entry(table, "tcn")
    assert found.number == "0.110 ± 0.025"
    assert (found.n, found.flags) == (3, ())
    assert any("n=3 seeds where no n is given" in note for note in table.notes)


@pytest.mark.parametrize("n", [1, 2])
def test_few_seeds_are_said_and_have_no_interval(n):
    table = build([make_record(seed=seed, value=0.1 + seed) for seed in range(n)])
    assert entry(table, "tcn").spread == ""
    assert entry(table, "tcn").flags[0] == f"n={n}"
    assert "fewer than 3 seeds give no interval" in table.notes


def test_an_unusual_number_of_seeds_is_said():
    records = [make_record(model=m, seed=s) for m in ("tcn", "gru") for s in range(4)]
    records += [make_record(model="lstm", seed=seed) for seed in range(3)]
    table = build(records)
    assert entry(table, "lstm").flags == ("n=3",)
    assert entry(table, "gru").flags == ()


def test_the_best_mean_is_marked_in_either_direction():
    lower = build([make_record(value=0.2), make_record(model="lstm", value=0.1)])
    assert (entry(lower, "tcn").best, entry(lower, "lstm").best) == (False, True)
    higher = build(
        [make_record("smnist", value=0.2), make_record("smnist", model="lstm", value=0.1)]
    )
    assert (entry(higher, "tcn").best, entry(higher, "lstm").best) == (True, False)


def test_a_model_on_its_own_is_not_the_best():
    assert not entry(build([make_record()]), "tcn").best


def test_survivors_of_divergence_are_not_the_best():
    table = build(
        [
            make_record(value=0.001),
            make_record(seed=1, status="diverged"),
            make_record(model="lstm", value=0.1),
        ]
    )
    assert not entry(table, "tcn").best
    assert "1 diverged" in entry(table, "tcn").flags


def test_what_failed_is_shown_even_if_nothing_else_is_there():
    table = build([make_record(status="failed"), make_record(seed=1, status="diverged")])
    assert entry(table, "tcn").value == "-"
    assert entry(table, "tcn").flags == ("1 diverged", "1 failed")
    assert table.columns[0].measure == "no score (full)"


def test_a_mixture_of_solved_and_unsolved_is_said():
    table = build([make_record(seed=seed, value=(1e-4, 0.16, 1e-4)[seed]) for seed in range(3)])
    assert entry(table, "tcn").flags == ("2 of 3 solved",)


def test_a_seed_that_counts_twice_is_said():
    one = make_record()
    table = build([one, replace(one, run_id="f" * 12)])
    assert "a seed counts twice" in entry(table, "tcn").flags


def test_older_code_is_marked():
    table = build([make_record(seed=0), make_record(seed=1, source="older"), make_record("copy")])
    assert [e and e.marks for e in entries(table, "tcn")] == ["†", ""]
    old = make_record(seed=1, source="older").run_id
    assert f"† run with older code: {old[:8]}" in table.notes


def test_a_note_says_that_all_runs_are_of_older_code():
    table = build([make_record(seed=0, source="older"), make_record("copy", source="older")])
    assert [e and e.marks for e in entries(table, "tcn")] == ["", ""]
    assert "all runs with older code" in table.notes


def test_sizes_and_budgets_have_columns_of_their_own():
    table = build([make_record(), make_record(budget="quick", task__length=200)])
    assert [str(column) for column in table.columns] == [
        "adding T=200 · MSE ↓ (quick)",
        "adding T=600 · MSE ↓ (full)",
    ]


def test_protocols_stand_in_the_header_where_they_differ_and_below_where_not():
    table = build([make_record(), make_record(protocol="paper")])
    assert [c.measure for c in table.columns] == ["MSE ↓ (full, ours)", "MSE ↓ (full, paper)"]
    assert "protocol: ours" in build([make_record()]).notes


def test_variants_of_a_model_have_rows_of_their_own():
    table = build([make_record(), make_record(model__kernel_size=7), make_record("copy")])
    assert [row.label for row in table.rows[:3]] == [
        "tcn",
        "tcn (kernel_size=7)",
        "tcn (kernel_size=8)",
    ]


def test_published_numbers_stand_beside_measured_ones_with_remarks():
    records = [
        make_record(),
        make_record(model="llama"),
        make_record("copy", protocol="paper", parameters=12530),
    ]
    table = build(records, paper="tcn2018")
    assert [str(column) for column in table.columns][1::2] == ["published · tcn2018"] * 2
    assert [column.beside for column in table.columns] == [False, True, False, True]
    assert entry(table, "tcn", 1) == Entry("5.8e-5", marks="¹")
    assert entries(table, "llama")[1] is None
    assert entry(table, "tcn", 3) == Entry("3.5e-5")
    assert "¹ protocol ours instead of paper (adding T=600: tcn)" in table.notes


def test_a_training_of_another_length_than_its_budget_says_is_marked():
    records = [make_record(model=m, trainer__epochs=1) for m in ("tcn", "lstm")]
    table = build([*records, make_record(model="gru")])
    marks = {row.label: row.entries[0].marks for row in table.rows if not row.bound}
    assert marks == {"gru": "", "lstm": "¹", "tcn": "¹"}
    assert table.notes[-1] == "¹ epochs=1 instead of epochs=10 (adding T=600: lstm, tcn)"


def test_equal_remarks_are_one_note():
    records = [make_record(model=m) for m in ("tcn", "lstm")] + [
        make_record("smnist", "gru", value=0.9)
    ]
    (note,) = [n for n in build(records, paper="tcn2018").notes if "instead" in n]
    assert note == "¹ protocol ours instead of paper (adding T=600: lstm, tcn; smnist T=784: gru)"


def test_tasks_that_the_paper_has_not_get_no_published_column():
    assert len(build([make_record("parity")], paper="tcn2018").columns) == 1


def test_an_unknown_paper_is_refused():
    with pytest.raises(ConfigError, match="no paper named"):
        build([make_record()], paper="nobody1999")


def test_no_cells_are_an_empty_table():
    assert build([]) == Table("Test scores", (), (), ())


def test_markdown():
    records = [make_record(seed=seed, value=0.1 + seed / 100) for seed in range(3)]
    records.append(make_record(model="lstm", value=0.5, source="older"))
    assert markdown(build(records)).splitlines() == [
        "**Test scores**",
        "",
        "| model | adding T=600 · MSE ↓ (full) |",
        "|---|---:|",
        "| lstm | 0.500† (n=1) |",
        "| tcn | **0.110 ± 0.025** |",
        "| without memory | 0.167 |",
        "| best possible | 0 |",
        "",
        "- mean ± half of its 95% confidence interval (Student's t); n=3 seeds where no n is given",
        "- fewer than 3 seeds give no interval",
        "- protocol: ours",
        f"- † run with older code: {records[-1].run_id[:8]}",
    ]


HOSTILE = "a|b`*<b>[x](y)\x1b[2J\n_z_ =1+1 $x$"


def test_hostile_names_stay_in_their_cell_of_markdown():
    record = replace(make_record(), task=HOSTILE, model=HOSTILE, budget=HOSTILE)
    text = markdown(build([record]))
    header = next(line for line in text.splitlines() if line.startswith("| model"))
    assert header.replace("\\|", "").count("|") == 3
    assert "\x1b" not in text
    assert "\\<b\\>" in text
    assert "\\[x\\](y)" in text
    assert escape_markdown("char_ptb _x_") == "char_ptb \\_x\\_"


def lines_of(records: list[Record], paper: str | None = None) -> list[export.Line]:
    return export.long_form(aggregate(records), SOURCE, paper)


def test_long_form_has_a_line_for_each_cell_and_rounds_nothing():
    records = [make_record("smnist", "gru", seed=seed, value=0.9 + seed / 300) for seed in range(3)]
    records.append(make_record("smnist", "gru", seed=3, status="diverged"))
    records.append(make_record("smnist", "gru", seed=4, source="older", status="failed"))
    (line,) = lines_of(records, paper="tcn2018")
    assert line.mean == pytest.approx(0.9 + 1 / 300, abs=1e-15)
    assert line.sd == pytest.approx(1 / 300)
    assert (line.n, line.failed, line.diverged, line.older_code) == (3, 1, 1, 1)
    assert (line.min, line.median) == (0.9, 0.9 + 1 / 300)
    assert (line.metric, line.direction, line.published) == ("accuracy", "max", 0.962)
    assert line.not_like_for_like == "protocol ours instead of paper"
    assert line.run_ids == [record.run_id for record in records]


def test_json_is_the_lines_as_objects():
    lines = lines_of([make_record(), make_record(model="lstm", status="failed")])
    objects = json.loads(export.to_json(lines))
    assert [list(obj) for obj in objects] == [[f.name for f in fields(export.Line)]] * 2
    assert objects[0]["mean"] is None
    assert objects[1]["mean"] == 1e-4
    assert json.loads(export.to_json([])) == []


def test_csv_reads_back():
    lines = lines_of([make_record(seed=seed) for seed in range(2)] + [make_record("copy", "gru")])
    rows = list(csv.DictReader(io.StringIO(export.to_csv(lines))))
    assert [row["task"] for row in rows] == ["adding", "copy"]
    assert float(rows[0]["mean"]) == 1e-4
    assert rows[0]["run_ids"].split() == lines[0].run_ids
    assert rows[1]["sd"] == ""
    assert export.to_csv([]).strip().split(",") == [f.name for f in fields(export.Line)]


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@sum", "\t=1", "\r=1"])
def test_no_csv_cell_is_a_formula(name):
    (line,) = lines_of([replace(make_record(), model=name, budget=name)])
    (row,) = csv.DictReader(io.StringIO(export.to_csv([line])))
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
    cells = aggregate([record, make_record()])
    table = build_table(cells, SOURCE, "tcn2018")
    markdown(table).encode("utf-8")
    assert len(json.loads(export.to_json(export.long_form(cells, SOURCE)))) == len(cells)
    assert len(export.to_csv(export.long_form(cells, SOURCE)).splitlines()) == len(cells) + 1
