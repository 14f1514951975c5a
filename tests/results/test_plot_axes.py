from pathlib import Path

import pytest
from matplotlib.figure import Figure
from record_factory import make_record

from seqbench.results import report
from seqbench.results.cells import aggregate
from seqbench.results.plots.axes import (
    COLOURS,
    draw_bound,
    fitted,
    is_log,
    set_ticks,
    styles_of,
    tick,
)


def test_models_can_be_told_without_their_colours():
    models = ("gru", "llama", "lstm", "rnn", "tcn")
    styles = styles_of(aggregate([make_record(model=model) for model in models]))
    assert list(styles) == list(models)
    assert len({style.marker for style in styles.values()}) == 5
    assert len({str(style.dash) for style in styles.values()}) == 5


def test_variants_share_the_colour_of_their_model_unless_it_is_alone():
    tcns = [make_record(model__kernel_size=k) for k in (4, 8)]
    together = styles_of(aggregate([*tcns, make_record(model="gru")]))
    assert together["tcn (kernel_size=4)"].colour == together["tcn (kernel_size=8)"].colour
    assert together["gru"].colour != together["tcn (kernel_size=4)"].colour
    assert together["tcn (kernel_size=4)"].dash != together["tcn (kernel_size=8)"].dash
    alone = styles_of(aggregate(tcns))
    assert alone["tcn (kernel_size=4)"].colour != alone["tcn (kernel_size=8)"].colour


def test_the_colours_are_those_of_the_report():
    text = Path(report.__path__[0], "page.css").read_text()
    for i, colour in enumerate(COLOURS):
        assert f"--series-{i}: light-dark({colour}" in text


@pytest.mark.parametrize(
    ("value", "metric", "text"),
    [
        (0.985, "accuracy", "98.5"),
        (0, "mse", "0"),
        (5000, "", "5000"),
        (15000, "", "15k"),
        (2.5e6, "", "2.5M"),
        (0.002, "mse", "0.002"),
        (1e-4, "mse", "1e-4"),
        (2.5e-5, "mse", "2.5e-5"),
        (1e15, "", "1e15"),
    ],
)
def test_numbers_beside_an_axis_are_short(value, metric, text):
    assert tick(value, metric) == text


@pytest.mark.parametrize("places", [[50, 100, 200], [10, 1000]])
def test_a_few_places_that_stand_apart_are_the_ticks(places):
    axes = Figure().subplots()
    axes.plot(places, places)
    set_ticks(axes, "x", True, places=places)
    assert axes.get_xticks().tolist() == places


def test_places_that_are_near_each_other_are_not():
    axes = Figure().subplots()
    axes.plot([69500, 70369, 81000], [1, 2, 3])
    set_ticks(axes, "x", True, places=[69500, 70369, 81000])
    assert 70369 not in axes.get_xticks()


def test_a_long_text_is_cut_to_three_lines():
    assert fitted("a " * 100, 10) == "a a a a a\na a a a a\na a a ..."
    assert fitted("short", 10) == "short"
    assert fitted("", 10) == "(no name)"


def test_an_axis_is_logarithmic_where_all_its_values_can_be_on_it():
    assert is_log([1e-5, 1], None, True)
    assert not is_log([1e-5, 1], False, True)
    assert is_log([1e-5, 1], True, False)
    assert not is_log([0.0, 1], True, True)
    assert not is_log([1e-310, 1], True, True)


def test_a_bound_of_a_logarithmic_axis_is_a_line_or_a_remark():
    axes = Figure().subplots()
    assert list(draw_bound(axes, "without memory", [(0, 0.1)], "accuracy", True)) == []
    assert [line.get_label() for line in axes.get_lines()] == ["without memory"]
    (remark,) = draw_bound(axes, "without memory", [(0, -0.1)], "accuracy", True)
    assert remark == "without memory: -10.0, which a logarithmic axis cannot show"
    assert len(axes.get_lines()) == 1
