import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqbench.wording import duration, metric_name, number, plain, score, spread


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
    ("half_width", "beside", "metric", "text"),
    [
        (0.0123, "0.167", "mse", "0.012"),
        (0.00013, "0.167", "mse", "1.3e-4"),
        (0.0, "0.167", "mse", "0.000"),
        (1.24e-5, "5.84e-5", "mse", "1.2e-5"),
        (0.0021, "98.8", "accuracy", "0.2"),
        (12.4, "1279", "perplexity", "12"),
    ],
)
def test_an_interval_has_the_decimals_of_its_number(half_width, beside, metric, text):
    assert spread(half_width, beside, metric) == text


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
