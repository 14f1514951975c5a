import math
from dataclasses import replace

import numpy as np
import pytest
from record_factory import make_record

from seqbench.config.build import build
from seqbench.config.choices import CONFIG_FOLDER, read_choice
from seqbench.errors import ConfigError
from seqbench.results.cells import Cell, aggregate
from seqbench.results.papers import (
    PublishedCell,
    Verdict,
    differences,
    explanation,
    load_paper,
    papers,
    published,
    read_paper,
    verdict,
)

# Table 1 of Bai, Kolter, Koltun 2018, typed a second time, by column.
TABLE_1 = {
    "smnist": {"lstm": 0.872, "gru": 0.962, "rnn": 0.215, "tcn": 0.990},
    "pmnist": {"lstm": 0.857, "gru": 0.873, "rnn": 0.253, "tcn": 0.972},
    "adding": {"lstm": 0.164, "gru": 5.3e-5, "rnn": 0.177, "tcn": 5.8e-5},
    "copy": {"lstm": 0.0204, "gru": 0.0197, "rnn": 0.0202, "tcn": 3.5e-5},
    "jsb": {"lstm": 8.45, "gru": 8.43, "rnn": 8.91, "tcn": 8.10},
    "nottingham": {"lstm": 3.29, "gru": 3.46, "rnn": 4.05, "tcn": 3.07},
    "word_ptb": {"lstm": 78.93, "gru": 92.48, "rnn": 114.50, "tcn": 88.68},
    "wikitext103": {"lstm": 48.4, "tcn": 45.19},
    "lambada": {"lstm": 4186.0, "rnn": 14725.0, "tcn": 1279.0},
    "char_ptb": {"lstm": 1.36, "gru": 1.37, "rnn": 1.48, "tcn": 1.31},
    "char_text8": {"lstm": 1.50, "gru": 1.53, "rnn": 1.69, "tcn": 1.45},
}


def number(task: str, model: str, paper: str = "tcn2018") -> PublishedCell:
    """Return a published number."""
    found = published(paper, make_record(task, model))
    assert found is not None
    return found


def test_every_published_cell_is_there_once():
    table = load_paper("tcn2018")
    found = {row.task: {m: c.value for m, c in cells.items()} for row, cells in table.items()}
    assert found == TABLE_1


@pytest.mark.parametrize(
    ("task", "model", "text", "metric", "direction", "rounding"),
    [
        ("char_text8", "lstm", "1.50 bpc", "bpc", "min", 0.005),
        ("smnist", "tcn", "99.0 %", "accuracy", "max", 0.0005),
        ("adding", "tcn", "5.8e-5", "mse", "min", 5e-7),
    ],
)
def test_digits_are_those_printed(task, model, text, metric, direction, rounding):
    found = number(task, model)
    assert (found.text, found.row.metric, found.row.direction) == (text, metric, direction)
    assert found.rounding == pytest.approx(rounding)


def test_tasks_that_we_run_are_among_our_tasks_and_the_others_are_not():
    ours = {path.stem for path in (CONFIG_FOLDER / "task").glob("*.yaml")}
    for row in load_paper("tcn2018"):
        too_large = row.task == "word_ptb"
        assert row.run == (row.task in ours and not too_large), row.task


def test_each_cell_names_the_disagreements_that_concern_it():
    def caveats(task: str, model: str) -> str:
        return " ".join(number(task, model).caveats)

    assert "1/6" in caveats("adding", "rnn")
    assert "70,369" in caveats("adding", "tcn")
    assert "without memory" in caveats("copy", "lstm")
    assert "clips nothing" in caveats("copy", "tcn")
    assert "clips nothing" not in caveats("copy", "lstm")
    assert "unseeded" in caveats("pmnist", "gru")
    assert "<eos>" in caveats("char_ptb", "gru")
    assert "test set was watched" not in caveats("char_ptb", "gru")


def test_settings_that_are_not_printed_are_a_caveat():
    for row, cells in load_paper("tcn2018").items():
        for cell in cells.values() if row.run else ():
            unprinted = any("no settings are printed" in caveat for caveat in cell.caveats)
            assert unprinted == (cell.model in ("gru", "rnn")), cell


def test_others_on_mnist_are_context():
    found = {
        (row.task, model): cell.value
        for row, cells in load_paper("s4_2022").items()
        for model, cell in cells.items()
    }
    assert len(found) == 12
    assert (found["smnist", "s4"], found["pmnist", "s4"]) == (0.9963, 0.9870)
    assert (found["smnist", "lstm"], found["pmnist", "lstm"]) == (0.989, 0.9511)
    assert (found["smnist", "transformer"], found["pmnist", "trellisnet"]) == (0.989, 0.9813)
    record = make_record("smnist", "lstm")
    found = differences(record, number("smnist", "lstm", "s4_2022"))
    assert list(found) == ["protocol ours instead of that of the paper"]


def test_papers_come_by_their_year_and_an_unknown_one_gets_a_near_miss():
    years = [name[-4:] for name in papers()]
    assert years == sorted(years)
    assert published("tcn2018", make_record("adding", "llama")) is None
    assert published("tcn2018", make_record("lambada", "gru")) is None
    with pytest.raises(ConfigError, match="did you mean 'tcn2018'"):
        load_paper("tcn2019")
    with pytest.raises(ConfigError, match="there are: "):
        published("../train", make_record("adding", "tcn"))


# Table 2 of LTSF-Linear, typed a second time, by model: 96, 192, 336, 720 on ETTh1, then on ETTh2.
LTSF = {
    "linear": [0.375, 0.418, 0.479, 0.624, 0.288, 0.377, 0.452, 0.698],
    "nlinear": [0.374, 0.408, 0.429, 0.440, 0.277, 0.344, 0.357, 0.394],
    "dlinear": [0.375, 0.405, 0.439, 0.472, 0.289, 0.383, 0.448, 0.605],
}
HORIZONS = [(task, steps) for task in ("etth1", "etth2") for steps in (96, 192, 336, 720)]


@pytest.mark.parametrize("model", LTSF)
def test_a_row_is_found_by_the_options_of_the_task(model):
    for (task, horizon), value in zip(HORIZONS, LTSF[model], strict=True):
        options = {"task__horizon": horizon, "task__target": "all"}
        found = published("ltsf2023", make_record(task, model, **options))
        assert found is not None
        assert (found.value, found.row.name) == (value, f"{task} horizon={horizon} target=all")
        assert (
            published("ltsf2023", make_record(task, model, **options | {"task__horizon": 97}))
            is None
        )


def test_a_target_of_one_column_is_another_row():
    one = make_record("etth1", "informer", task__horizon=24, task__target="OT", task__inputs=[])
    found = published("informer2021", one)
    assert found is not None
    assert (found.value, found.row.overrides[-1]) == (0.098, "task.inputs=[]")
    all_columns = make_record("etth1", "informer", task__horizon=24, task__target="all")
    found = published("informer2021", all_columns)
    assert found is not None
    assert found.value == 0.577


@pytest.mark.parametrize("paper", papers())
def test_caveats_of_a_paper_are_all_used(paper):
    """A number without a caveat raises KeyError when the paper is loaded."""
    used = {
        caveat
        for cells in load_paper(paper).values()
        for cell in cells.values()
        for caveat in cell.caveats
    }
    assert used == set(read_paper(paper)["caveats"].values())


def test_the_last_value_scores_what_is_printed_if_the_last_batch_is_left_out(real_data):
    for task, horizon in HORIZONS:
        node = read_choice("task", task) | {"horizon": horizon, "drop_last": True}
        built = build("task", {"task": node}, batch_size=32, seed=0, data_dir=str(real_data))
        options = {"task__horizon": horizon, "task__target": "all"}
        printed = published("ltsf2023", make_record(task, "last_value", **options))
        assert printed is not None
        assert f"{built.naive['last value']:.3f}" == printed.printed


@pytest.mark.parametrize(
    ("change", "score", "reason"),
    [
        ({}, {}, ""),
        ({}, {"split": "test_mean"}, ""),
        ({"task__length": 200}, {}, "T=200 instead of T=600"),
        ({"budget": "quick"}, {}, "budget quick instead of full"),
        ({"budget": None}, {}, "custom budget instead of full"),
        ({"trainer__epochs": 1}, {}, "epochs=1 instead of epochs=10"),
        ({"protocol": "ours"}, {}, "protocol ours instead of paper"),
        ({"parameters": 700_000}, {}, "700,000 parameters instead of about 70,000"),
        ({"parameters": 10}, {}, "10 parameters instead of about 70,000"),
        (
            {"budget": "quick"},
            {"metric": "mae", "split": "valid"},
            "mae instead of mse, on valid instead of test, budget quick instead of full",
        ),
    ],
)
def test_each_difference_is_a_reason(change, score, reason):
    record = make_record(**{"protocol": "paper"} | change)
    assert record.score is not None
    record = replace(record, score=replace(record.score, **score))
    assert ", ".join(differences(record, number("adding", "tcn"))) == reason


def cell(values, task="adding", model="tcn", **changes) -> Cell:
    changes = {"protocol": "paper"} | changes
    runs = [make_record(task, model, seed, value, **changes) for seed, value in enumerate(values)]
    [made] = aggregate(runs)
    return made


def judged(values, task="adding", model="tcn", **changes) -> Verdict:
    return verdict(cell(values, task, model, **changes), number(task, model))


@pytest.mark.parametrize(
    ("task", "model", "values", "words"),
    [
        ("adding", "tcn", [5.5e-5, 6e-5, 6.5e-5], "reproduced"),  # 6.0e-5 times or by 1.5
        ("adding", "tcn", [4e-5, 6e-5, 8e-5], "cannot tell"),  # times or by 5.6
        ("adding", "tcn", [1e-5, 1.1e-5, 1.2e-5], "better"),
        ("adding", "tcn", [2e-4, 2.1e-4, 2.2e-4], "worse"),
        ("adding", "tcn", [5.84e-5, 5.84e-5, 5.84e-5], "reproduced"),  # as rounded in print
        ("adding", "tcn", [5.86e-5, 5.86e-5, 5.86e-5], "worse"),
        ("adding", "tcn", [1e-5, 2e-5, 0.16], "cannot tell"),
        ("adding", "tcn", [1e-5], "n=1: looks better"),
        ("adding", "tcn", [5.8e-5, 5.8e-5], "n=2: looks alike"),
        ("adding", "tcn", [1e-5, 0.2], "n=2: looks worse"),
        ("smnist", "gru", [0.974, 0.975, 0.976], "better"),
        ("smnist", "gru", [0.904, 0.905, 0.906], "worse"),
        ("smnist", "gru", [0.9624, 0.9624, 0.9624], "reproduced"),
        ("copy", "lstm", [0.0204, 0.02041, 0.02039], "reproduced"),  # in print, too, the baseline
    ],
)
def test_a_verdict_says_no_more_than_the_seeds(task, model, values, words):
    size = 11110 if task == "copy" else -1
    assert judged(values, task, model, parameters=size).words == words


@pytest.mark.parametrize("n", [3, 20])
def test_print_from_the_same_distribution_is_seldom_better_or_worse(n):
    """The share is 5% at any number of seeds; with 400 draws, 2 to 8.5% leaves room for chance."""
    random = np.random.default_rng(n)
    printed = number("adding", "tcn")
    wrong = 0
    for _ in range(400):
        *values, theirs = np.exp(random.normal(math.log(5.8e-5), 0.1, n + 1)).tolist()
        said = verdict(cell(values), replace(printed, value=theirs, printed=f"{theirs:.12f}"))
        wrong += said.words in ("better", "worse")
    assert 8 <= wrong <= 34


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"protocol": "mine"}, "protocol mine instead of paper"),
        ({"task__length": 200}, "T=200 instead of T=600"),
        ({"budget": "quick"}, "budget quick instead of full"),
    ],
)
def test_what_was_measured_otherwise_is_not_comparable(changes, reason):
    assert judged([5.5e-5, 6e-5, 6.5e-5], **changes) == ("not comparable", reason)


@pytest.mark.parametrize("protocol", ["ours", "code"])
def test_another_protocol_of_ours_is_said_beside_the_verdict(protocol):
    said = f"protocol {protocol} instead of paper"
    assert judged([1e-5], protocol=protocol) == ("n=1: looks better", said)
    # A tenth of the way to the baseline, 1/6, in logarithms: a factor of 2.22.
    both = f"scores of 2.62e-5 to 1.29e-4 count as alike; {said}"
    assert judged([5.5e-5, 6e-5, 6.5e-5], protocol=protocol) == ("reproduced", both)
    assert judged([1e-5, 2e-5, 0.16], protocol=protocol) == ("cannot tell", both)


def test_scores_of_another_split_are_another_protocol():
    row = replace(number("adding", "tcn").row, split="valid")
    printed = replace(number("adding", "tcn"), row=row)
    said = verdict(cell([1e-5]), printed)
    assert said == ("n=1: looks better", "on test instead of valid")


def test_what_is_missing_is_said():
    runs = [make_record(seed=seed, value=5.8e-5, protocol="paper") for seed in range(3)]
    runs.append(make_record(seed=3, status="diverged", protocol="paper"))
    [made], [lost] = aggregate(runs), aggregate(runs[3:])
    printed = number("adding", "tcn")
    assert verdict(made, printed) == ("not comparable", "of 4 runs 1 diverged")
    assert verdict(lost, printed) == ("not measured", "of 1 runs 1 diverged")
    assert verdict(None, printed) == ("not measured", "")
    assert verdict(cell([1e-4], model="llama"), None) == ("no published value", "")


def test_words_that_need_it_are_explained():
    assert explanation(["not measured", "n=1: looks better", "not comparable"]) == []
    [note] = explanation(["not measured", "reproduced"])
    assert note.startswith(
        "reproduced: the published value lies within the 95% prediction interval"
    )
