"""Tests of the tables of the terminal: what stands in a cell is text, whatever it contains."""

from io import StringIO

import pytest
from rich.console import Console, RenderableType
from rich.text import Text

from seqbench.cli.rich_tables import columns_table, facts_panel, facts_table, print_sections

# rich markup, an escape sequence that clears the screen, and a character that reverses a line.
HOSTILE = "[red]a[/red] \x1b[2Jb \u202ec"


def drawn(*what: RenderableType, width: int = 60) -> str:
    console = Console(file=StringIO(), width=width, force_terminal=True, color_system=None)
    for each in what:
        console.print(each)
    file = console.file
    assert isinstance(file, StringIO)
    return file.getvalue()


@pytest.mark.parametrize(
    "table",
    [
        facts_table([("a", HOSTILE), (HOSTILE, "b")]),
        facts_panel(HOSTILE, [("a", HOSTILE)]),
        columns_table([HOSTILE], [[HOSTILE]]),
    ],
)
def test_cells_and_titles_show_markup_and_hide_control_characters(table: RenderableType) -> None:
    text = drawn(table)
    assert text.count("[red]a[/red]") == 2
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_numbers_are_aligned_to_the_right() -> None:
    table = columns_table(["name", "count"], [["a", "5"], ["long name", "1,234"]], ["count"])
    assert [line.rstrip() for line in drawn(table).splitlines()] == [
        "name       count",
        "a              5",
        "long name  1,234",
    ]


def test_long_cells_are_folded_not_cut() -> None:
    text = drawn(columns_table(["name"], [["x" * 100]]), facts_table([("a", "y" * 100)]))
    assert (text.count("x"), text.count("y")) == (100, 100)


def test_sections_have_a_title_and_a_blank_line_between_them() -> None:
    console = Console(file=StringIO(), width=40)
    print_sections(console, {"": {"a": "1"}, "empty": {}, "second": {"b": Text("2")}})
    file = console.file
    assert isinstance(file, StringIO)
    lines = [line.rstrip() for line in file.getvalue().splitlines()]
    assert lines == ["a  1", "", "second", "b  2"]
