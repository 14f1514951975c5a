"""Print a table of results in a terminal of any width."""

from dataclasses import replace
from itertools import takewhile
from textwrap import wrap

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from seqbench.cli.rich_tables import empty_table
from seqbench.results.tables.table import Entry, Table

# Width at which headers and flags are folded, so that they do not widen a column of numbers.
FOLD = 18
# Blanks between two columns.
GAP = 2


def show_table(table: Table, console: Console) -> None:
    """Print a table; if it is too wide, print blocks of its columns one below the other.

    A star marks the best means in output without bold type.
    """
    star = "" if console.is_terminal else "*"
    console.print(Text(table.title, style="bold"))
    labels = [table.stub, *(row.label for row in table.rows)]
    label_width = min(max(map(len, labels)), max(24, console.width // 3))
    view = starred(table) if star else table
    for block in blocks(view, console.width - label_width):
        console.print()
        console.print(rich_table(view, block, label_width))
    console.print()
    for note in table.notes_with(star or "bold"):
        console.print(Text(note, style="dim"))


def starred(table: Table) -> Table:
    """Mark the best means with a star."""
    rows = []
    for row in table.rows:
        entries = [replace(e, marks=f"*{e.marks}") if e and e.best else e for e in row.entries]
        rows.append(replace(row, entries=tuple(entries)))
    return replace(table, rows=tuple(rows))


def blocks(table: Table, room: int) -> list[list[int]]:
    """Split the columns, by index, into blocks at most `room` wide.

    The columns beside a mean stay in its block if they fit.
    """
    result: list[list[int]] = []
    used = room
    widths = [GAP + column_width(table, i) for i in range(len(table.columns))]
    for i, column in enumerate(table.columns):
        beside = takewhile(lambda j: table.columns[j].beside, range(i + 1, len(table.columns)))
        together = widths[i] + (0 if column.beside else sum(widths[j] for j in beside))
        wanted = together if together <= room else widths[i]
        if not result or used + wanted > room:
            result.append([])
            used = 0
        result[-1].append(i)
        used += widths[i]
    return result


def rich_table(table: Table, block: list[int], label_width: int) -> RichTable:
    """Render a block of columns, without rows that are empty in it."""
    view = empty_table()
    view.add_column(Text(table.stub), width=label_width, overflow="fold")
    for i in block:
        header = table.columns[i]
        measure = header.measure.replace(" ↓", "\u00a0↓").replace(" ↑", "\u00a0↑")
        title = f"{header.task}\n{measure}"
        view.add_column(Text(title), justify="right", width=column_width(table, i))
    in_bounds = False
    for row in table.rows:
        if not any(row.entries[i] for i in block):
            continue
        if row.bound and not in_bounds:
            view.add_row()
            in_bounds = True
        cells = [entry_text(row.entries[i], row.bound, marks_width(table, i)) for i in block]
        view.add_row(Text(row.label, "dim" if row.bound else ""), *cells)
    return view


def entry_text(entry: Entry | None, bound: bool, marks_width: int) -> Text:
    """Return a number padded by `marks_width`, so that numbers align, and its flags below it."""
    if entry is None:
        return Text()
    style = "dim" if bound else "bold green" if entry.best else ""
    text = Text.assemble((entry.number, style), entry.marks.ljust(marks_width))
    # No-break spaces: fold between flags, not within one.
    flags = wrap(", ".join(flag.replace(" ", "\u00a0") for flag in entry.flags), FOLD)
    for line in flags:
        text.append("\n" + line.ljust(len(line) + marks_width), style="yellow")
    return text


def marks_width(table: Table, i: int) -> int:
    """Return the width of the longest marks in a column."""
    return max((len(entry.marks) for row in table.rows if (entry := row.entries[i])), default=0)


def column_width(table: Table, i: int) -> int:
    """Return the width that a column needs with its header folded."""
    header, marks = table.columns[i], marks_width(table, i)
    texts = [entry_text(row.entries[i], row.bound, marks).plain for row in table.rows]
    lines = [line for text in texts for line in text.split("\n")]
    titles = [header.task, header.measure]
    words = [word for title in titles for word in title.split()]
    return max(*map(cell_len, lines + words), min(FOLD, max(map(cell_len, titles))))
