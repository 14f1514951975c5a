from dataclasses import replace

import pytest
from record_factory import make_record

from seqbench.config.choices import CONFIG_FOLDER
from seqbench.errors import ConfigError
from seqbench.results.papers import incomparable_reason, load_paper, papers, published

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


def test_every_published_cell_is_there_once():
    cells = load_paper("tcn2018")
    found = {task: {c.model: c.value for c in cells if c.task == task} for task in TABLE_1}
    assert found == TABLE_1
    assert len(cells) == sum(len(row) for row in TABLE_1.values())


def test_digits_are_those_printed():
    cell = published("tcn2018", "char_text8", "lstm")
    assert cell is not None
    assert (cell.printed, cell.unit, cell.metric, cell.direction) == ("1.50", "bpc", "bpc", "min")
    accuracy = published("tcn2018", "smnist", "tcn")
    assert accuracy is not None
    assert (accuracy.printed, accuracy.unit, accuracy.direction) == ("99.0", "%", "max")


def test_tasks_that_we_run_are_among_our_tasks_and_the_others_are_not():
    ours = {path.stem for path in (CONFIG_FOLDER / "task").glob("*.yaml")}
    for cell in load_paper("tcn2018"):
        assert cell.run == (cell.task in ours), cell.task


def test_budget_of_a_paper_is_one_of_ours():
    budgets = {path.stem for path in (CONFIG_FOLDER / "budget").glob("*.yaml")}
    assert {cell.budget for cell in load_paper("tcn2018")} <= budgets


def test_each_cell_names_the_disagreements_that_concern_it():
    def caveats(task: str, model: str) -> str:
        cell = published("tcn2018", task, model)
        assert cell is not None
        return " ".join(cell.caveats)

    assert "1/6" in caveats("adding", "rnn")
    assert "70,369" in caveats("adding", "tcn")
    assert "without memory" in caveats("copy", "lstm")
    assert "clips nothing" in caveats("copy", "tcn")
    assert "clips nothing" not in caveats("copy", "lstm")
    assert "unseeded" in caveats("pmnist", "gru")
    assert "<eos>" in caveats("char_ptb", "gru")
    assert "test set was watched" not in caveats("char_ptb", "gru")


def test_settings_that_are_not_printed_are_a_caveat():
    for cell in load_paper("tcn2018"):
        if cell.run:
            unprinted = any("no settings are printed" in caveat for caveat in cell.caveats)
            assert unprinted == (cell.model in ("gru", "rnn")), cell


def test_others_on_mnist_are_context():
    found = {(c.task, c.model): c.value for c in load_paper("s4_2022")}
    assert len(found) == 12
    assert (found["smnist", "s4"], found["pmnist", "s4"]) == (0.9963, 0.9870)
    assert (found["smnist", "lstm"], found["pmnist", "lstm"]) == (0.989, 0.9511)
    assert (found["smnist", "transformer"], found["pmnist", "trellisnet"]) == (0.989, 0.9813)
    cell = published("s4_2022", "smnist", "lstm")
    assert cell is not None
    reason = incomparable_reason(make_record("smnist", "lstm"), cell)
    assert reason == "protocol ours instead of published"


def test_papers_come_by_their_year():
    assert papers() == ["tcn2018", "s4_2022"]


def test_the_mean_of_the_last_results_on_test_is_on_test():
    cell = published("tcn2018", "adding", "tcn")
    record = make_record(protocol="paper")
    assert cell is not None
    assert record.score is not None
    watched = replace(record, score=replace(record.score, split="test_mean"))
    assert incomparable_reason(watched, cell) is None


def test_what_is_not_published_is_none():
    assert published("tcn2018", "adding", "llama") is None
    assert published("tcn2018", "lambada", "gru") is None


def test_an_unknown_paper_gets_a_near_miss():
    assert "tcn2018" in papers()
    with pytest.raises(ConfigError, match="did you mean 'tcn2018'"):
        load_paper("tcn2019")
    with pytest.raises(ConfigError, match="there are: "):
        published("../train", "adding", "tcn")


def test_a_run_like_the_papers_is_incomparable_reason():
    cell = published("tcn2018", "adding", "tcn")
    assert cell is not None
    assert incomparable_reason(make_record(protocol="paper"), cell) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"task__length": 200}, "published at T=600, here T=200"),
        ({"budget": "quick"}, "budget quick instead of full"),
        ({"budget": None}, "budget of your own instead of full"),
        ({"trainer__epochs": 1}, "epochs=1 instead of epochs=10"),
        ({"protocol": "ours"}, "protocol ours instead of paper"),
        ({"parameters": 700_000}, "700,000 parameters instead of about 70,000"),
        ({"parameters": 10}, "10 parameters instead of about 70,000"),
    ],
)
def test_each_difference_is_a_reason(change, reason):
    cell = published("tcn2018", "adding", "tcn")
    assert cell is not None
    assert incomparable_reason(make_record(**{"protocol": "paper"} | change), cell) == reason


def test_the_amount_of_the_paper_is_as_good_as_that_of_the_recipe():
    cell = published("tcn2018", "smnist", "tcn")
    assert cell is not None
    protocol = "protocol ours instead of paper"
    for epochs, reason in {10: "", 20: "", 5: "epochs=5 instead of epochs=20, "}.items():
        record = make_record("smnist", trainer__epochs=epochs, parameters=66910)
        assert incomparable_reason(record, cell) == reason + protocol


def test_another_metric_or_split_is_a_reason_and_reasons_add_up():
    cell = published("tcn2018", "adding", "tcn")
    record = make_record(budget="quick", protocol="paper")
    assert cell is not None
    assert record.score is not None
    other = replace(record, score=replace(record.score, metric="mae", split="valid"))
    assert incomparable_reason(other, cell) == (
        "published mse, here mae, published on test, here on valid, budget quick instead of full"
    )
