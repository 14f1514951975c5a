import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from seqbench.cli.text_plot import HEIGHT, print_curves
from seqbench.results.curves import Curve

STEPS = tuple(range(0, 1001, 10))
FALLING = Curve(STEPS, tuple(10 ** (-4 * step / 1000) for step in STEPS))
RISING = Curve(STEPS, tuple(step / 1000 for step in STEPS))


def drawn(metric, curves, baselines=(), width=80, encoding="utf-8", **options):
    """Return the printed lines: an empty one, the title, a frame around the plot, the steps."""
    written = io.BytesIO()
    file = io.TextIOWrapper(written, encoding=encoding)
    console = Console(file=file, width=width, highlight=False, **options)
    print_curves(console, "valid", metric, curves, baselines)
    file.flush()
    return written.getvalue().decode(encoding).splitlines()


def test_a_line_stands_at_each_power_of_ten_where_values_span_decades():
    lines = drawn("mse", {"a": FALLING}, [(1 / 6, "without memory")])
    assert lines[1] == "valid MSE over 1,000 steps, log axis; line: 0.167 without memory"
    labels = [line.partition("│")[0].strip() for line in lines[3 : 3 + HEIGHT]]
    assert [label for label in labels if label] == ["1", "0.1", "0.01", "0.001", "1e-4"]
    assert lines[2].strip() == "┌" + "─" * (80 - labels_width(lines) - 2) + "┐"
    # It falls by as much everywhere: from corner to corner, each row to the right of that above.
    starts = [re.search("[\u2801-\u28ff]", line).start() for line in lines[3 : 3 + HEIGHT]]
    assert starts == sorted(starts)
    assert len(set(starts)) == HEIGHT
    assert sum("▁" in line or "─" in line or "▔" in line for line in lines[3 : 3 + HEIGHT]) == 1


def labels_width(lines):
    return lines[2].index("┌")


def test_accuracies_are_in_per_cent_on_a_linear_axis():
    lines = drawn("accuracy", {"a": RISING}, [(0.1, "without memory")])
    assert lines[1] == "valid accuracy % over 1,000 steps; line: 10.0 without memory"
    labels = [line.partition("│")[0].strip() for line in lines[3 : 3 + HEIGHT]]
    assert [label for label in labels if label] == [f"{n} %" for n in (100, 80, 60, 40, 20, 0)]


def test_several_curves_are_told_apart_by_letter_and_by_colour():
    curves = {"a": RISING, "b": Curve(STEPS, tuple(1 - value for value in RISING.values))}
    rows = drawn("bpc", curves)[3 : 3 + HEIGHT]
    assert re.search("b.*a", rows[0])
    assert re.search("a.*b", rows[-1])
    coloured = "\n".join(drawn("bpc", curves, force_terminal=True, color_system="standard"))
    colours = [set(re.findall(rf"\x1b\[(\d+)m{letter}", coloured)) for letter in "ab"]
    assert [len(found) for found in colours] == [1, 1]
    assert colours[0] != colours[1]


def test_a_letter_keeps_its_colour_where_another_has_nothing_to_draw():
    alone = drawn("bpc", {"a": Curve(), "b": RISING}, force_terminal=True, color_system="standard")
    both = {"a": FALLING, "b": RISING}
    together = drawn("bpc", both, force_terminal=True, color_system="standard")
    colours = [set(re.findall(r"\x1b\[(\d+)mb", "\n".join(lines))) for lines in (alone, together)]
    assert colours[0] == colours[1] != set()


@pytest.mark.parametrize("curves", [{"a": FALLING}, {"a": FALLING, "b": RISING}], ids=[1, 2])
def test_ascii_is_enough(curves):
    lines = drawn("mse", curves, [(0.5, "x")], encoding="ascii")
    assert "\n".join(lines).isascii()
    assert sum("---" in line for line in lines) == 3, "two of the frame, one of the baseline"
    assert not re.search(r"\?|\x1b", "\n".join(lines))


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_it_is_no_wider_than_the_terminal(width):
    for metric in ("mse", "accuracy"):
        lines = drawn(metric, {"a": RISING, "b": FALLING}, [(0.1, "x")], width)
        assert max(map(cell_len, lines)) <= width


def test_nothing_is_drawn_of_no_points():
    assert drawn("mse", {}) == []
    assert drawn("mse", {"a": Curve()}) == []


@pytest.mark.parametrize(
    ("steps", "values"),
    [
        ((5,), (0.5,)),
        ((0,), (0.0,)),
        ((0, 1), (3.0, 3.0)),
        ((0, 1), (1.0, 1.0 + 2**-52)),
        ((1, 2, 3), (1e-300, 1.0, 1e99)),
        ((1, 2), (5e-324, 5e-324)),
        ((1, 2, 3), (-9e99, 0.0, 9e99)),
        ((0, 2**53 - 1), (1.0, 2.0)),
        ((-1, 3, 10**400), (1.0, 2.0, 3.0)),
        ((1, 2, 3), (1e308, 1.0, -1e308)),
    ],
)
@pytest.mark.parametrize("metric", ["mse", "accuracy", "\x1b[31m[red]x[/]\n"])
def test_any_numbers_make_a_plot(steps, values, metric):
    lines = drawn(metric, {"a": Curve(steps, values)}, [(0.0, "x"), (-1e308, "y")], 60)
    assert len(lines) >= HEIGHT + 5
    assert max(map(cell_len, lines)) <= 60
    assert re.search("[\u2801-\u28ff]", "".join(lines))
    assert "\x1b" not in "".join(lines)
