import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from record_factory import make_record

from seqbench.results.cells import aggregate
from seqbench.results.variants import tell_apart


def test_seeds_of_one_configuration_are_one_cell():
    (cell,) = aggregate([make_record(seed=seed, value=float(seed)) for seed in (2, 0, 1)])
    assert [record.seed for record in cell.records] == [0, 1, 2]
    assert cell.statistics is not None
    assert (cell.statistics.n, cell.statistics.mean) == (3, 1.0)
    assert (cell.model, cell.variant, cell.parameters) == ("tcn", "", 70369)
    assert (cell.column.task, cell.column.length, cell.column.variant) == ("adding", 600, "")
    assert (cell.baseline, cell.optimum) == (1 / 6, 0.0)


@pytest.mark.parametrize(
    "change",
    [
        {"task__length": 200},
        {"task__markers": "one_per_half"},
        {"budget": "quick"},
        {"protocol": "paper"},
        {"model__kernel_size": 7},
        {"optimizer__lr": 0.002},
        {"trainer__steps": 100},
        {"trainer__precision": "bf16"},
        {"parameters": 1000},
        {"task": "copy"},
        {"model": "lstm"},
    ],
)
def test_what_differs_is_never_pooled(change):
    cells = aggregate([make_record(seed=0), make_record(seed=1, **change)])
    assert [len(cell.records) for cell in cells] == [1, 1]
    names = {(cell.column, cell.model, cell.variant) for cell in cells}
    assert len(names) == 2


def test_other_data_is_another_column():
    other = replace(make_record(seed=1), data={"test": "f" * 64})
    one, two = aggregate([make_record(seed=0), other])
    assert one.column != two.column
    assert {one.column.variant, two.column.variant} == {
        "test=ffffffffffff",
        f"test={make_record().data['test'][:12]}",
    }


def test_another_metric_is_another_column():
    record = make_record(seed=1)
    assert record.score is not None
    other = replace(record, score=replace(record.score, metric="mae"))
    assert [cell.column.metric for cell in aggregate([make_record(), other])] == ["mae", "mse"]


@pytest.mark.parametrize(
    "change",
    [{"device": "cuda"}, {"threads": 7}, {"output_dir": "/there"}, {"trainer__log_every": 3}],
)
def test_where_a_run_ran_does_not_matter(change):
    assert len(aggregate([make_record(seed=0), make_record(seed=1, **change)])) == 1


def test_runs_that_failed_early_stand_with_their_fellows_whatever_the_order():
    failed = replace(make_record(seed=1, status="failed", parameters=None), data={})
    for records in ([failed, make_record(seed=0)], [make_record(seed=0), failed]):
        (cell,) = aggregate(records)
        assert (cell.failed, cell.diverged, [v for _, v in cell.scores]) == (1, 0, [1e-4])
        assert cell.parameters == 70369
        assert cell.column.metric == "mse"


def test_a_model_of_which_all_runs_failed_stands_in_the_column_of_the_others():
    failed = replace(make_record(model="lstm", status="failed", parameters=None), data={})
    lstm, tcn = aggregate([failed, make_record()])
    assert lstm.column == tcn.column
    assert lstm.statistics is None


def test_diverged_runs_are_counted_and_kept_out_of_the_mean():
    runs = [
        make_record(seed=0, value=0.1),
        replace(make_record(seed=1, value=0.2), status="diverged"),
        make_record(seed=2, value=None),
        replace(make_record(seed=3, value=0.3), status="failed"),
    ]
    (cell,) = aggregate(runs)
    assert (cell.scores, cell.diverged, cell.failed) == ([(0, 0.1)], 2, 1)


def test_the_share_solved_counts_divergence_but_not_failure():
    runs = [
        make_record(seed=0, value=1e-5),
        make_record(seed=1, value=0.1),
        make_record(seed=2, status="diverged"),
        make_record(seed=3, value=None),
        make_record(seed=4, status="failed"),
    ]
    (cell,) = aggregate(runs)
    assert (cell.scores, cell.diverged, cell.failed) == ([(0, 1e-5), (1, 0.1)], 2, 1)
    assert cell.lost == ["2 diverged", "1 failed"]
    assert cell.solved == (1, 4)
    (unmarked,) = aggregate([make_record("smnist", value=0.99)])
    assert unmarked.solved is None


def test_runs_of_edited_code_are_not_pooled():
    before, after = ({"model": digit * 64} for digit in "ab")
    runs = [
        replace(make_record(seed=seed), code=code)
        for seed, code in enumerate([{}, before, after, before])  # an old record does not know it
    ]
    one, other = aggregate(runs)
    assert (one.variant, other.variant) == ("code=" + "a" * 12, "code=" + "b" * 12)
    assert (len(one.records), len(other.records)) == (3, 1)


def test_tasks_of_edited_code_are_other_columns():
    runs = [replace(make_record(seed=i), code={"task": "ab"[i] * 64}) for i in (0, 1)]
    variants = [cell.column.variant for cell in aggregate(runs)]
    assert variants == ["code=" + "a" * 12, "code=" + "b" * 12]


def test_tasks_and_models_of_one_size_say_what_tells_them_apart():
    cells = aggregate([make_record(), make_record(task__markers="one_per_half")])
    assert [cell.column.variant for cell in cells] == ["", "markers=one_per_half"]
    assert [cell.variant for cell in cells] == ["", ""]
    cells = aggregate([make_record(), make_record(model__kernel_size=7, parameters=60000)])
    assert [cell.variant for cell in cells] == ["kernel_size=7", "kernel_size=8"]


ADAM, SGD = ({"optimizer._target_": f"torch.optim.{name}"} for name in ("Adam", "SGD"))
MINE, OURS = (
    {"schedule._target_": f"{package}.Cosine"}
    for package in ("mine", "seqbench.training.schedules")
)
TEXT = {"task.path": "/a.txt", "task.sha256": "a" * 64}


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        ([{"lr": 1}], [""]),
        ([ADAM, SGD], ["optimizer=Adam", "optimizer=SGD"]),
        ([MINE, OURS], ["schedule=mine.Cosine", "schedule=Cosine"]),
        # A text is named by its file, and by its content where that is not enough.
        ([TEXT, {"task.path": "/b.txt"}], ['path="a.txt"', 'path="b.txt"']),
        ([TEXT, TEXT | {"task.sha256": "c" * 64}], ["sha256=" + x * 12 for x in "ac"]),
        # An option that is called code is no hash.
        ([{"model.code": f"as before, then {x}"} for x in "ab"],
         [f'code="as before, then {x}"' for x in "ab"]),
        # Options that follow from another add nothing.
        ([{"parameters": i, "data.x": str(i), "model.dim": i} for i in (1, 2)], ["dim=1", "dim=2"]),
        ([{"optimizer.lr": i, "schedule.lr": i} for i in (1, 2)],
         [f"optimizer.lr={i}, schedule.lr={i}" for i in (1, 2)]),
        ([{f"model.x{i}": n for i in range(6)} for n in (1, 2)],
         [f"x0={n}, x1={n}, x2={n}, +3 more" for n in (1, 2)]),
        ([{"x": None}, {}], [" #1", " #2"]),
        ([{"model.x": [24] * 8}, {"model.x": [30, 20]}], ["x=[24]*8", "x=[30,20]"]),
        ([{"data.x": "same" * 3 + c} for c in "ab"], [" #1", " #2"]),
    ],
)  # fmt: skip
def test_rivals_are_named_by_what_differs(options, labels):
    assert tell_apart(options) == labels


def test_options_of_columns_do_not_name_a_file_of_sequences():
    columns = {"task__id": "id", "task__label": "label", "task__time": None}
    npz = make_record(task__path="/far/away/my.npz", **columns)
    csv = make_record(task__path="/far/away/my.csv", **columns | {"task__id": "cycle"})
    found = {cell.column.variant for cell in aggregate([npz, csv])}
    assert found == {'path="my.npz"', 'id=cycle, label=label, path="my.csv"'}


VALUES = st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(["a", "true", "1", ""])


@given(
    st.lists(st.dictionaries(st.sampled_from("abcdef"), VALUES, max_size=6), min_size=1, max_size=6)
)
def test_labels_are_as_different_as_the_rivals(options):
    rivals = [o for i, o in enumerate(options) if o not in options[:i]]
    assert len(set(tell_apart(rivals))) == len(rivals)


CHANGES = st.fixed_dictionaries(
    {
        "task": st.sampled_from(["adding", "copy"]),
        "model": st.sampled_from(["tcn", "lstm"]),
        "seed": st.integers(0, 3),
        "status": st.sampled_from(["completed", "completed", "diverged", "failed"]),
        "task__length": st.sampled_from([100, 200]),
        "budget": st.sampled_from(["full", "quick", None]),
        "trainer__steps": st.sampled_from([100, 200]),
        "parameters": st.sampled_from([None, 10, 20]),
    }
)


@settings(max_examples=60)
@given(st.lists(CHANGES, min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_no_run_is_lost_and_no_place_taken_twice(changes, randomness):
    records = [make_record(**change) for change in changes]
    cells = aggregate(records)
    assert sum(len(cell.records) for cell in cells) == len(records)
    places = [(cell.column, cell.model, cell.variant) for cell in cells]
    assert len(set(places)) == len(places)
    for cell in cells:
        configs = [{**r.config, "seed": None} for r in cell.records]
        assert all(config == configs[0] for config in configs)
        assert len(cell.scores) + cell.diverged + cell.failed == len(cell.records)
    known = [r for r in records if r.parameters is not None and r.score is not None]
    if len(known) == len(records):
        shuffled = list(records)
        random.Random(randomness.random()).shuffle(shuffled)
        again = aggregate(shuffled)
        assert [(c.column, c.model, c.variant) for c in again] == places


def test_a_record_from_before_an_option_is_pooled_with_those_that_have_it():
    target = {"model___target_": "seqbench.models.llama.Llama"}
    old = make_record("adding", "llama", 0, **target)
    new = make_record("adding", "llama", 1, **target, model__norm="rms")
    other = make_record("adding", "llama", 2, **target, model__norm="layer")
    cells = aggregate([old, new, other])
    assert [(cell.variant, len(cell.records)) for cell in cells] == [
        ("norm=layer", 1),
        ("norm=rms", 2),
    ]


def test_an_option_of_a_task_that_a_record_lacks_is_at_its_default():
    target = {"task___target_": "seqbench.tasks.mnist.SequentialMnist"}
    old = make_record("smnist", "gru", 0, value=0.9, **target)
    new = make_record("smnist", "gru", 1, value=0.9, **target, task__valid_size=5000)
    other = make_record("smnist", "gru", 2, value=0.9, **target, task__valid_size=0)
    cells = aggregate([old, new, other])
    assert [(cell.column.variant, len(cell.records)) for cell in cells] == [
        ("valid_size=0", 1),
        ("valid_size=5000", 2),
    ]
