import pytest
from record_factory import make_record

from seqbench.results.cells import aggregate
from seqbench.results.papers import explanation, published, verdict


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
    assert judged([0.974, 0.975, 0.976], "smnist", "gru").words == "better"
    assert judged([0.904, 0.905, 0.906], "smnist", "gru").words == "worse"
    assert judged([0.9624, 0.9624, 0.9624], "smnist", "gru").words == "reproduced"


def test_a_published_value_at_the_baseline_can_be_reproduced():
    assert judged([0.0204, 0.02041, 0.02039], "copy", "lstm", parameters=11110).words == (
        "reproduced"
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"protocol": "mine"}, "protocol mine instead of paper"),
        ({"task__length": 200}, "published at T=600, here T=200"),
        ({"budget": "quick"}, "budget quick instead of full"),
    ],
)
def test_what_was_measured_otherwise_is_not_comparable(changes, reason):
    assert judged([5e-5, 6e-5, 7e-5], **changes) == ("not comparable", reason)


@pytest.mark.parametrize("protocol", ["ours", "code"])
def test_another_protocol_of_ours_is_said_beside_the_verdict(protocol):
    said = f"protocol {protocol} instead of paper"
    assert judged([5e-5, 6e-5, 7e-5], protocol=protocol) == ("reproduced", said)
    assert judged([1e-5], protocol=protocol) == ("n=1: looks better", said)
    both = f"the interval contains the baseline; {said}"
    assert judged([1e-5, 2e-5, 0.16], protocol=protocol) == ("cannot tell", both)


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
    assert number.rounding == pytest.approx(half)


def test_words_that_need_it_are_explained():
    assert explanation(["not measured", "n=1: looks better", "not comparable"]) == []
    [note] = explanation(["not measured", "reproduced"])
    assert note.startswith("reproduced: the published value lies within the 95% interval")
