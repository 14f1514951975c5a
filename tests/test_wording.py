import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqbench.wording import counted, duration, mean_and_spread, metric_name, number, plain, score


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.0, "0"),
        (1 / 6, "0.167"),
        (0.5, "0.500"),
        (5.84e-5, "5.84e-5"),
        (0.001, "0.00100"),
        (0.00099951, "1.00e-3"),
        (9.996, "10.0"),
        (99.96, "100"),
        (999.6, "1000"),
        (1279.4, "1279"),
        (-1.305, "-1.30"),
        (12345678.0, "1.23e7"),
    ],
)
def test_numbers_have_three_significant_digits(value, text):
    assert number(value) == text


def test_accuracies_are_in_per_cent():
    assert number(0.98765, "accuracy") == "98.8"
    assert number(1.0, "test_accuracy") == "100"
    assert score("accuracy", 0.9) == "accuracy 90.0 %"
    assert score("mse", 0.9) == "MSE 0.900"
    assert score("recall_accuracy", None) == "recall accuracy - %"
    assert metric_name("recall_accuracy") == "recall accuracy %"


@given(st.floats(1e-12, 1e12) | st.floats(-1e12, -1e-12))
def test_no_number_is_off_by_more_than_its_last_digit(value):
    text = number(value)
    assert float(text) == pytest.approx(value, rel=0.005)
    digits = text.partition("e")[0].lstrip("-0.").replace(".", "")
    assert len(digits) == 3 or abs(value) >= 999


@pytest.mark.parametrize(
    ("mean", "half_width", "metric", "texts"),
    [
        (0.167, 0.0123, "mse", ("0.167", "0.012")),
        (0.167, 0.00013, "mse", ("0.16700", "0.00013")),
        (0.167, 1.5e-6, "mse", ("0.167000", "1.5e-6")),
        (0.167, 1e-12, "mse", ("0.167000", "1.0e-12")),
        (0.167, 0.0, "mse", ("0.167", "0")),
        (0.011, 0.0248, "mse", ("0.0110", "0.0248")),
        (5.84e-5, 1.24e-5, "mse", ("5.84e-5", "1.2e-5")),
        (5.84e-5, 1.24e-8, "mse", ("5.8400e-5", "1.2e-8")),
        (2.929, 0.0043, "bits_per_character", ("2.9290", "0.0043")),
        (2.73, 0.026, "bits_per_character", ("2.730", "0.026")),
        (0.98813, 0.0021, "accuracy", ("98.81", "0.21")),
        (1279.0, 12.4, "perplexity", ("1279", "12")),
        (0.0, 0.5, "mse", ("0", "0.50")),
        (0.5, None, "mse", ("0.500", "")),
        (None, None, "mse", ("-", "")),
    ],
)
def test_a_mean_is_given_as_far_as_its_interval(mean, half_width, metric, texts):
    assert mean_and_spread(mean, half_width, metric) == texts


@given(st.floats(1e-9, 1e9), st.floats(1e-9, 1e9))
def test_an_interval_is_off_by_its_second_digit_or_the_last_of_its_mean(mean, half_width):
    text, spread = mean_and_spread(mean, half_width)
    assert float(text) == pytest.approx(mean, rel=0.005)
    last = 0.0 if "e" in text else 10.0 ** -len(text.partition(".")[2])
    assert abs(float(spread) - half_width) <= max(0.0501 * half_width, 0.501 * last)


@given(st.text())
def test_plain_text_is_one_line_that_any_terminal_can_show(text):
    shown = plain(text)
    assert shown.isprintable()
    shown.encode("utf-8")
    assert plain(shown) == shown


def test_plain_text_cannot_move_the_cursor_or_turn_the_line():
    assert plain("a\x1b[2Jb\nc\u202ed\r\x07") == "a[2Jbcd"
    assert plain("자료 émigré") == "자료 émigré"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.42, "0.4 s"),
        (59.4, "59 s"),
        (125, "2 m 05 s"),
        (3599.7, "1 h 00 m"),
        (7384, "2 h 03 m"),
        (None, "-"),
        ("soon", "-"),
        (math.nan, "-"),
        (math.inf, "-"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_only_one_is_singular():
    texts = [counted(number, "run") for number in (0, 1, 2, 2000)]
    assert texts == ["0 runs", "1 run", "2 runs", "2,000 runs"]
