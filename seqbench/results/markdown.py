"""Render a table as GitHub Markdown."""

import re
from collections.abc import Iterable

from seqbench.results.tables import Entry, Table


def render(table: Table) -> str:
    """Return Markdown with the best means in bold and the notes below the table."""
    lines = [
        _line([table.stub, *map(str, table.columns)]),
        "|---" + "|---:" * len(table.columns) + "|",
        *(_line([row.label]) + _entries(row.entries) for row in table.rows),
    ]
    notes = [f"- {escape(note)}" for note in table.notes]
    return "\n".join([f"**{escape(table.title)}**", "", *lines, "", *notes]) + "\n"


def escape(text: str) -> str:
    """Return text escaped for Markdown."""
    # An underscore inside a word, as in char_ptb, is an ordinary character.
    return re.sub(r"[\\`*<>\[\]|~&$]|\b_|_\b", r"\\\g<0>", text)


def _line(texts: Iterable[str]) -> str:
    return "|" + "".join(f" {escape(text)} |" for text in texts)


def _entries(entries: Iterable[Entry | None]) -> str:
    texts = []
    for entry in entries:
        if entry is None:
            texts.append(" |")
            continue
        number = f"**{entry.number}**" if entry.best else entry.number
        flags = f" ({', '.join(entry.flags)})" if entry.flags else ""
        texts.append(f" {number}{entry.marks}{flags} |")
    return "".join(texts)
