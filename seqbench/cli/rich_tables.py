"""Draw the tables of the terminal in one look: facts, and columns below a header."""

from collections.abc import Collection, Iterable, Mapping

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from seqbench.wording import plain

Cell = str | Text


def facts_table(facts: Iterable[tuple[str, Cell]]) -> Table:
    """Return a table of names and values, without a header."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", overflow="fold")
    table.add_column(overflow="fold")
    for fact in facts:
        table.add_row(*map(_text, fact))
    return table


def facts_panel(title: str, facts: Iterable[tuple[str, Cell]]) -> Panel:
    """Return a box with a title around names and values."""
    table, style = facts_table(facts), "green"
    return Panel(table, title=_text(title), title_align="left", border_style=style, expand=False)


def columns_table(
    header: Iterable[str], rows: Iterable[Iterable[Cell]], numbers: Collection[str] = ()
) -> Table:
    """Return a table with a header; an empty row is a blank line.

    Args:
        header: names of the columns.
        rows: cells of each row.
        numbers: names of the columns to align to the right.
    """
    table = empty_table()
    for name in header:
        table.add_column(
            _text(name), justify="right" if name in numbers else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*map(_text, row))
    return table


def empty_table(width: int | None = None) -> Table:
    """Return a table without columns, in the look of `columns_table`."""
    return Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", width=width)


def print_sections(console: Console, sections: Mapping[str, Mapping[str, Cell]]) -> None:
    """Print each section that has facts, with its title, which may be empty, and a blank line."""
    for i, (title, facts) in enumerate((t, f) for t, f in sections.items() if f):
        if i:
            console.print()
        if title:
            console.print(Text(plain(title), style="bold"))
        console.print(facts_table(facts.items()))


def _text(cell: Cell) -> Text:
    """Return a cell as text: no markup, and of a string nothing unprintable but line breaks."""
    return cell if isinstance(cell, Text) else Text("\n".join(map(plain, cell.split("\n"))))
