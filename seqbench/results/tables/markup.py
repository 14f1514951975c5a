r"""Render a table as Markdown, HTML or LaTeX.

Markdown is GitHub's; HTML is one `<table>` without style or scripts; LaTeX needs
\usepackage{booktabs} and no other package.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import partial
from html import escape as escape_html

from seqbench.results.tables.table import Entry, Row, Table
from seqbench.wording import plain

# LaTeX commands. Names may hold any character. Brackets and stars are escaped because after a line
# break they would be its argument; quotes, ? and ! because pairs of them form ligatures.
COMMANDS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedblright{}",
    "'": r"\textquoteright{}",
    "`": r"\textquoteleft{}",
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "?": "?{}",
    "!": "!{}",
    "±": r"$\pm$",
    "·": r"$\cdot$",
    "\u00d7": r"$\times$",
    "÷": r"$\div$",
    "←": r"$\leftarrow$",
    "→": r"$\rightarrow$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "†": r"$^{\dagger}$",
    "‡": r"$^{\ddagger}$",
    **{digit: rf"\textsuperscript{{{i}}}" for i, digit in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
}
# Pairs of these form ligatures, too.
PAIRS = re.compile(r"([-,])(?=\1)")
ACCENTS = {
    "\u0300": r"\`",
    "\u0301": r"\'",
    "\u0302": r"\^",
    "\u0303": r"\~",
    "\u0304": r"\=",
    "\u0306": r"\u",
    "\u0307": r"\.",
    "\u0308": r"\"",
    "\u030a": r"\r",
    "\u030b": r"\H",
    "\u030c": r"\v",
    "\u0327": r"\c",
}
NUMBER = re.compile(r"(-?\d+(?:\.\d+)?)(?:e(-?\d+))?")


def markdown(table: Table) -> str:
    """Return Markdown with the best means in bold and the notes below the table."""
    entry = partial(_entry, bold="**{}**", escape=escape_markdown, flags=" ({})")

    def line(texts: Iterable[str]) -> str:
        return "|" + "".join(f" {text} |" if text else " |" for text in texts)

    header = map(escape_markdown, [table.stub, *map(str, table.columns)])
    return "\n".join(
        [
            f"**{escape_markdown(table.title)}**",
            "",
            line(header),
            "|---" + "|---:" * len(table.columns) + "|",
            *(line([escape_markdown(row.label), *map(entry, row.entries)]) for row in table.rows),
            "",
            *(f"- {escape_markdown(note)}" for note in table.notes_with("bold")),
            "",
        ]
    )


def html(table: Table) -> str:
    """Return a table element with the best means in `<strong>` and the notes in its footer."""
    entry = partial(
        _entry, bold="<strong>{}</strong>", escape=escape_html, flags=" <small>({})</small>"
    )

    def line(row: Row) -> str:
        entries = "".join(f"<td>{entry(found)}</td>" for found in row.entries)
        return f'<tr><th scope="row">{escape_html(row.label)}</th>{entries}</tr>'

    head = [escape_html(table.stub)]
    head += [f"{escape_html(c.task)}<br>{escape_html(c.measure)}" for c in table.columns]
    # Bounds get their own row group.
    bodies = [[line(row) for row in table.rows if row.bound is bound] for bound in (False, True)]
    lines = [
        "<table>",
        f"<caption>{escape_html(table.title)}</caption>",
        "<thead>",
        "<tr>" + "".join(f'<th scope="col">{text}</th>' for text in head) + "</tr>",
        "</thead>",
    ]
    for rows in filter(None, bodies):
        lines += ["<tbody>", *rows, "</tbody>"]
    if notes := table.notes_with("bold"):
        lines += ["<tfoot>", f'<tr><td colspan="{len(head)}"><ul>']
        lines += [f"<li>{escape_html(note)}</li>" for note in notes]
        lines += ["</ul></td></tr>", "</tfoot>"]
    return "\n".join([*lines, "</table>", ""])


def latex(table: Table) -> str:
    """Return a table environment with the best means in bold and the notes below it."""
    # \textbf has no effect in math mode.
    entry = partial(
        _entry,
        bold=r"{{\boldmath{}}}",
        escape=escape_latex,
        flags=r" {{\footnotesize({})}}",
        number=_latex_number,
    )

    def line(texts: Iterable[str]) -> str:
        return " & ".join(texts) + r" \\"

    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape_latex(table.title)}}}",
        r"\smallskip",
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"\toprule",
        line(map(escape_latex, [table.stub, *(column.task for column in table.columns)])),
        line(map(escape_latex, ["", *(column.measure for column in table.columns)])),
    ]
    in_bounds: bool | None = None
    for row in table.rows:
        if row.bound is not in_bounds:
            lines.append(r"\midrule")
            in_bounds = row.bound
        lines.append(line([escape_latex(row.label), *map(entry, row.entries)]))
    lines += [r"\bottomrule", r"\end{tabular}"]
    if notes := table.notes_with("bold"):
        # A minipage wraps long notes.
        lines += ["", r"\smallskip", r"\begin{minipage}{\linewidth}", r"\footnotesize"]
        lines += [rf"{escape_latex(note)}\par" for note in notes]
        lines.append(r"\end{minipage}")
    return "\n".join([*lines, r"\end{table}", ""])


RENDERERS: dict[str, Callable[[Table], str]] = {"markdown": markdown, "html": html, "latex": latex}


def _entry(
    entry: Entry | None,
    bold: str,
    escape: Callable[[str], str],
    flags: str,
    number: Callable[[Entry], str] | None = None,
) -> str:
    """Return an entry with markup.

    Args:
        entry: the entry; `None` gives an empty text.
        bold: format of the best number.
        escape: escapes a text.
        flags: format of the flags, separated by commas.
        number: returns the number with markup; `None` to escape it as text.
    """
    if entry is None:
        return ""
    text = number(entry) if number else escape(entry.number)
    remark = flags.format(escape(", ".join(entry.flags))) if entry.flags else ""
    return (bold.format(text) if entry.best else text) + escape(entry.marks) + remark


def escape_markdown(text: str) -> str:
    """Return text escaped for Markdown."""
    # An underscore inside a word, as in char_ptb, is an ordinary character.
    return re.sub(r"[\\`*<>\[\]|~&$]|\b_|_\b", r"\\\g<0>", text)


def escape_latex(text: str) -> str:
    """Return text escaped for LaTeX; characters that pdfLaTeX cannot typeset become `[U+XXXX]`."""
    characters = map(_latex_character, unicodedata.normalize("NFC", plain(text)))
    return PAIRS.sub(r"\1{}", "".join(characters))


def _latex_character(character: str) -> str:
    if character in COMMANDS or character.isascii():
        return COMMANDS.get(character, character)
    letter, *marks = list(unicodedata.normalize("NFD", character))
    if letter.isascii() and letter.isalpha() and len(marks) == 1 and marks[0] in ACCENTS:
        return rf"{ACCENTS[marks[0]]}{{{letter}}}"
    return f"{{[}}U+{ord(character):04X}{{]}}"


def _latex_number(entry: Entry) -> str:
    parts = [_latex_math(part) for part in (entry.value, entry.spread) if part]
    return "$" + (r" \times\div " if entry.log else r" \pm ").join(parts) + "$"


def _latex_math(text: str) -> str:
    """Return a number in math mode, or any other text in an mbox."""
    found = NUMBER.fullmatch(text)
    if found is None:
        return rf"\mbox{{{escape_latex(text)}}}"
    mantissa, exponent = found.groups()
    # Not as a power of ten: a superscript note mark would look like a digit of the exponent.
    return mantissa if exponent is None else rf"{mantissa}\mathrm{{e}}{{{exponent}}}"
