import math

import pytest
from record_factory import make_record

from seqbench.config.build import build
from seqbench.config.compose import compose
from seqbench.errors import ConfigError
from seqbench.results.tables.reproduction import build_reproduction
from seqbench.results.targets import no_verdict, targets, without_a_row
from seqbench.spec import Classes, SequenceSpec, Tokens

OURS = ["gru", "llama", "lstm", "rnn", "tcn"]


def test_targets_are_what_can_be_run_and_what_stands_beside():
    labels = [target.label for target in targets("tcn2018", OURS)]
    assert len(labels) == 8 * 5
    assert "adding llama" in labels
    assert not any(label.startswith("word_ptb") for label in labels)
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


def test_published_scores_of_models_that_seqbench_lacks_are_in_the_notes():
    found = dict.fromkeys(targets("fawaz2019", OURS, "dataset=GunPoint"), ())
    notes = build_reproduction("fawaz2019", found, 3).notes
    assert "published for other models: ucr dataset=GunPoint: mlp 92.7, fcn 100.0, resnet 99.1" in (
        notes
    )


def test_options_of_a_row_choose_a_part_and_are_set():
    models = ["nlinear", "tcn"]
    found = targets("ltsf2023", models, "task=etth2, horizon=96|720, model=nlinear")
    labels = [f"etth2 horizon={steps} target=all nlinear" for steps in (96, 720)]
    assert [target.label for target in found] == labels
    words = ["task=etth2", "task.horizon=96", "task.target=all"]
    assert found[0].row.overrides == words
    assert len(targets("ltsf2023", models)) == 16


def test_values_of_a_filter_that_no_row_has_are_named():
    only = "task=etth1|etth3, horizon=96|100, model=tcn"
    assert without_a_row("ltsf2023", ["tcn"], only) == ["task=etth3", "horizon=100"]


def test_cells_without_a_published_score_are_told_before_they_are_measured():
    said = no_verdict("fawaz2019", targets("fawaz2019", OURS, "dataset=GunPoint"))
    assert said.startswith("no cell has a verdict: fawaz2019 publishes scores of mlp, fcn, ")
    assert said.endswith(" there, and none of tcn, lstm, gru, rnn, llama")
    said = no_verdict("tcn2018", targets("tcn2018", OURS, "task=adding"))
    assert said.startswith("1 of 5 cells have no verdict: tcn2018 publishes scores of ")
    assert no_verdict("tcn2018", targets("tcn2018", OURS, "task=adding, model=tcn")) is None


@pytest.mark.parametrize(
    ("only", "message"),
    [
        ("task=addng", "nothing matches --only 'task=addng': task is smnist, "),
        (
            "tusk=adding",
            "--only wants 'task=adding, model=tcn|gru' (there are model, task), not 'tusk=adding'",
        ),
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
    table = build_reproduction("tcn2018", found, seeds)
    return {row.label: row.entries for row in table.rows}, table.notes


def test_published_and_measured_stand_side_by_side():
    rows, notes = built({"tcn": [5.5e-5, 6e-5, 6.5e-5, 6e-5, 6e-5], "llama": [1e-4, 2e-4]})
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
    assert any(note.startswith("in the paper, not run here: word_ptb, ") for note in notes)
    assert any("mean of the test results of the last 3 epochs" in note for note in notes)
    assert not any(note.startswith("†") for note in notes)


def test_an_experiment_without_published_scores_has_no_columns_for_them():
    found = dict.fromkeys(targets("scaling", OURS, "dim=16"), ())
    table = build_reproduction("scaling", found, 3)
    assert [header.task for header in table.columns][:2] == ["measured", "solved"]
    assert table.rows[0].label == "char_shakespeare dim=16 steps=1306 llama"
    assert table.notes[0] == "char_shakespeare: bpc ↓"
    assert no_verdict("scaling", list(found)) == (
        "no cell has a verdict: scaling has no published scores"
    )


def test_rows_of_the_scaling_experiment_are_of_equal_compute():
    """Three sizes at each of three amounts of compute, 6 FLOP per parameter and character."""
    amounts = {}
    for target in targets("scaling", OURS):
        config = compose([*target.row.overrides, f"model={target.model}"])
        spec = SequenceSpec(Tokens(66), Classes(66), "every", config["task"]["length"])
        size = sum(p.numel() for p in build("model", config, spec).parameters())
        assert size == target.row.size
        trainer = config["trainer"]
        characters = trainer["steps"] * trainer["batch_size"] * config["task"]["length"]
        amounts.setdefault(round(math.log2(6 * size * characters)), []).append(size * characters)
    assert [len(found) for found in amounts.values()] == [3, 3, 3]
    for found in amounts.values():
        assert max(found) / min(found) < 1.005


def test_a_reason_stands_once_below_the_table():
    rows, notes = built({"tcn": [1e-4] * 3, "lstm": [0.1] * 3}, budget="quick")
    assert (rows["adding tcn"][2].value, rows["adding tcn"][2].marks) == ("not comparable", "¹")
    assert rows["adding lstm"][2].marks == "¹"
    assert [note for note in notes if "budget quick" in note] == ["¹ budget quick instead of full"]


def test_models_that_seeds_do_not_tell_apart_are_marked():
    rows, notes = built({"tcn": [1e-4, 2e-4, 3e-4], "gru": [2e-4, 1e-4, 4e-4]}, seeds=3)
    assert rows["adding tcn"][1].best
    assert rows["adding gru"][1].marks == "‡"
    assert any(note.startswith("‡") for note in notes)


def test_runs_of_older_code_are_marked():
    rows, notes = built({"tcn": [1e-4] * 3}, source="0" * 12)
    assert rows["adding tcn"][1].marks == "†"
    assert any(note.startswith("† run with older code") for note in notes)
