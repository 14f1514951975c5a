import pytest
from record_factory import SOURCE, make_record

from seqbench.errors import ConfigError
from seqbench.results.aggregate import aggregate
from seqbench.results.papers import published
from seqbench.results.reproduction import build_reproduction, rounding, targets, verdict

OURS = ["gru", "llama", "lstm", "rnn", "tcn"]


def cell(values, task="adding", model="tcn", **changes):
    changes = {"protocol": "paper"} | changes
    runs = [make_record(task, model, seed, value, **changes) for seed, value in enumerate(values)]
    [made] = aggregate(runs)
    return made


def judged(values, task="adding", model="tcn", **changes):
    return verdict(cell(values, task, model, **changes), published("tcn2018", task, model))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([5e-5, 6e-5, 7e-5], "reproduced"),  # 5.8e-5 lies in 6.0e-5 ± 2.5e-5
        ([1e-5, 1.1e-5, 1.2e-5], "better"),
        ([2e-4, 2.1e-4, 2.2e-4], "worse"),
        ([5.84e-5, 5.84e-5, 5.84e-5], "reproduced"),  # as rounded in print
        ([5.86e-5, 5.86e-5, 5.86e-5], "worse"),
        ([1e-5, 2e-5, 0.16], "cannot tell"),  # its interval holds 1/6, too
        ([1e-5], "n=1: looks better"),
        ([5.8e-5, 5.8e-5], "n=2: looks alike"),
        ([1e-5, 0.2], "n=2: looks worse"),
    ],
)
def test_a_verdict_says_no_more_than_the_seeds(values, words):
    assert judged(values).words == words


def test_more_accuracy_is_better():
    assert judged([0.994, 0.995, 0.996], "smnist", parameters=66910).words == "better"
    assert judged([0.904, 0.905, 0.906], "smnist", parameters=66910).words == "worse"
    assert judged([0.9904, 0.9904, 0.9904], "smnist", parameters=66910).words == "reproduced"


def test_a_published_value_at_the_baseline_can_be_reproduced():
    assert judged([0.0204, 0.02041, 0.02039], "copy", "lstm", parameters=11110).words == (
        "reproduced"
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"protocol": "ours"}, "protocol ours instead of paper"),
        ({"task__length": 200}, "published at T=600, here T=200"),
        ({"budget": "quick"}, "budget quick instead of full"),
    ],
)
def test_what_was_measured_otherwise_is_not_comparable(changes, reason):
    assert judged([5e-5, 6e-5, 7e-5], **changes) == ("not comparable", reason)


def test_seeds_that_diverged_are_not_passed_over():
    runs = [make_record(seed=seed, value=5.8e-5, protocol="paper") for seed in range(3)]
    runs.append(make_record(seed=3, status="diverged", protocol="paper"))
    [made] = aggregate(runs)
    number = published("tcn2018", "adding", "tcn")
    assert verdict(made, number) == ("not comparable", "of 4 runs 1 diverged")
    [lost] = aggregate(runs[3:])
    assert verdict(lost, number) == ("not measured", "of 1 runs 1 diverged")


def test_what_is_missing_on_either_side_is_said():
    assert verdict(None, published("tcn2018", "adding", "tcn")).words == "not measured"
    assert verdict(cell([1e-4], model="llama"), None).words == "no published value"


@pytest.mark.parametrize(
    ("task", "model", "half"),
    [("smnist", "tcn", 0.0005), ("adding", "tcn", 5e-7), ("char_text8", "lstm", 0.005)],
)
def test_rounding_is_half_of_the_last_digit_in_print(task, model, half):
    number = published("tcn2018", task, model)
    assert number is not None
    assert rounding(number) == pytest.approx(half)


def test_targets_are_what_can_be_run_and_what_stands_beside():
    labels = [target.label for target in targets("tcn2018", OURS)]
    assert len(labels) == 6 * 5
    assert "adding llama" in labels
    assert not any(label.startswith("jsb") for label in labels)
    context = [target.label for target in targets("s4_2022", OURS)]
    assert context == ["smnist lstm", "pmnist lstm"]


@pytest.mark.parametrize(
    ("only", "labels"),
    [
        ("task=adding, model=tcn|gru", ["adding gru", "adding tcn"]),
        ("task=copy,model!=tcn|gru|llama", ["copy lstm", "copy rnn"]),
    ],
)
def test_a_part_of_the_table_can_be_chosen(only, labels):
    assert [target.label for target in targets("tcn2018", OURS, only)] == labels


@pytest.mark.parametrize(
    ("only", "message"),
    [
        ("task=addng", "nothing matches --only 'task=addng': tasks are smnist, "),
        ("tusk=adding", "--only wants 'task=adding, model=tcn|gru', not 'tusk=adding'"),
        ("task<adding", "--only wants"),
        ("adding", "--only wants"),
    ],
)
def test_a_part_that_cannot_be_is_one_line(only, message):
    with pytest.raises(ConfigError) as error:
        targets("tcn2018", OURS, only)
    assert str(error.value).startswith(message)


def built(values, seeds=5, **changes):
    found = {target: [] for target in targets("tcn2018", OURS, "task=adding")}
    for target in found:
        for seed, value in enumerate(values.get(target.model, [])):
            run = make_record(
                "adding", target.model, seed, value, **{"protocol": "paper"} | changes
            )
            found[target].append(run)
    table = build_reproduction("tcn2018", found, seeds, SOURCE)
    return {row.label: row.entries for row in table.rows}, table.notes


def test_published_and_measured_stand_side_by_side():
    rows, notes = built({"tcn": [5e-5, 6e-5, 7e-5, 6e-5, 6e-5], "llama": [1e-4, 2e-4]})
    assert list(rows) == [f"adding {model}" for model in ("lstm", "gru", "rnn", "tcn", "llama")]
    published, measured, said, difference, solved, parameters, seconds = rows["adding tcn"]
    assert (published.value, measured.value, said.value) == ("5.8e-5", "6.00e-5", "reproduced")
    assert measured.spread
    assert measured.flags == ()
    assert (difference.value, solved.value) == ("+2.00e-6", "5/5")
    assert (parameters.value, seconds.value) == ("70,369", "2 m 03 s")
    assert rows["adding llama"][0] is None
    assert rows["adding llama"][1].flags == ("n=2",)
    assert rows["adding llama"][2].value == "no published value"
    assert rows["adding gru"][1] is None
    assert rows["adding gru"][2].value == "not measured"
    assert any(note.startswith("in the paper, not run here: jsb, nottingham") for note in notes)
    assert any("mean of the test results of the last 3 epochs" in note for note in notes)
    assert not any(note.startswith("†") for note in notes)


def test_a_reason_stands_once_below_the_table():
    rows, notes = built({"tcn": [1e-4] * 3, "lstm": [0.1] * 3}, budget="quick")
    assert (rows["adding tcn"][2].value, rows["adding tcn"][2].marks) == ("not comparable", "¹")
    assert rows["adding lstm"][2].marks == "¹"
    assert [note for note in notes if "budget quick" in note] == ["¹ budget quick instead of full"]


def test_models_that_seeds_do_not_tell_apart_are_marked():
    rows, notes = built({"tcn": [1e-4, 2e-4, 3e-4], "gru": [2e-4, 1e-4, 4e-4]}, seeds=3)
    assert rows["adding tcn"][1].best
    assert rows["adding gru"][1].marks == "≈"
    assert any(note.startswith("≈") for note in notes)


def test_runs_of_older_code_are_marked():
    rows, notes = built({"tcn": [1e-4] * 3}, source="0" * 12)
    assert rows["adding tcn"][1].marks == "†"
    assert "† run with older code" in notes
