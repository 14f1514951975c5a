"""Render a table as an HTML fragment: one `<table>`, without style or scripts."""

from collections.abc import Iterable
from html import escape

from seqbench.results.tables import Entry, Row, Table


def render(table: Table) -> str:
    """Return a table element with the best means in `<strong>` and the notes in its footer."""
    head = [f'<th scope="col">{escape(table.stub)}</th>']
    for column in table.columns:
        head.append(f'<th scope="col">{escape(column.task)}<br>{escape(column.measure)}</th>')
    # Bounds get their own row group.
    bodies = [[row for row in table.rows if row.bound is bound] for bound in (False, True)]
    lines = [
        "<table>",
        f"<caption>{escape(table.title)}</caption>",
        f"<thead>\n<tr>{''.join(head)}</tr>\n</thead>",
        *(f"<tbody>\n{_rows(rows)}\n</tbody>" for rows in bodies if rows),
    ]
    if table.notes:
        notes = "".join(f"\n<li>{escape(note)}</li>" for note in table.notes)
        width = len(table.columns) + 1
        lines.append(f'<tfoot>\n<tr><td colspan="{width}"><ul>{notes}\n</ul></td></tr>\n</tfoot>')
    return "\n".join([*lines, "</table>"]) + "\n"


def _rows(rows: Iterable[Row]) -> str:
    return "\n".join(
        f'<tr><th scope="row">{escape(row.label)}</th>{"".join(map(_entry, row.entries))}</tr>'
        for row in rows
    )


def _entry(entry: Entry | None) -> str:
    if entry is None:
        return "<td></td>"
    number = escape(entry.number)
    if entry.best:
        number = f"<strong>{number}</strong>"
    flags = f" <small>({escape(', '.join(entry.flags))})</small>" if entry.flags else ""
    return f"<td>{number}{escape(entry.marks)}{flags}</td>"
