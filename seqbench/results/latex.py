r"""Render a table as LaTeX for a paper; it needs \usepackage{booktabs} and no other package."""

import re
import unicodedata
from collections.abc import Iterable

from seqbench.results.tables import Entry, Table
from seqbench.wording import plain

# Names may hold any character. Brackets and stars are escaped because after a line break they would
# be its argument; quotes, ? and ! because pairs of them form ligatures.
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
    "←": r"$\leftarrow$",
    "→": r"$\rightarrow$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "†": r"$^{\dagger}$",
    "≈": r"$^{\approx}$",
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


def render(table: Table) -> str:
    """Return a table environment with the best means in bold and the notes below it."""
    header = [table.stub, *(column.task for column in table.columns)]
    measures = ["", *(column.measure for column in table.columns)]
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(table.title)}}}",
        r"\smallskip",
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"\toprule",
        _line(map(escape, header)),
        _line(map(escape, measures)),
        r"\midrule",
    ]
    in_bounds = False
    for row in table.rows:
        if row.bound and not in_bounds:
            lines.append(r"\midrule")
            in_bounds = True
        lines.append(_line([escape(row.label), *map(_entry, row.entries)]))
    lines += [r"\bottomrule", r"\end{tabular}"]
    if table.notes:
        # A minipage wraps long notes.
        lines += ["", r"\smallskip", r"\begin{minipage}{\linewidth}", r"\footnotesize"]
        lines += [rf"{escape(note)}\par" for note in table.notes]
        lines.append(r"\end{minipage}")
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def escape(text: str) -> str:
    """Return text escaped for LaTeX; characters that pdfLaTeX cannot typeset become `[U+XXXX]`."""
    characters = map(_character, unicodedata.normalize("NFC", plain(text)))
    return PAIRS.sub(r"\1{}", "".join(characters))


def _character(character: str) -> str:
    if character in COMMANDS:
        return COMMANDS[character]
    if character.isascii():
        return character
    letter, *marks = list(unicodedata.normalize("NFD", character))
    if letter.isascii() and letter.isalpha() and len(marks) == 1 and marks[0] in ACCENTS:
        return rf"{ACCENTS[marks[0]]}{{{letter}}}"
    return f"{{[}}U+{ord(character):04X}{{]}}"


def _line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _entry(entry: Entry | None) -> str:
    if entry is None:
        return ""
    number = _number(entry.value)
    if entry.spread:
        number += rf" \pm {_number(entry.spread)}"
    # \textbf has no effect in math mode.
    value = rf"{{\boldmath${number}$}}" if entry.best else f"${number}$"
    flags = rf" {{\footnotesize({escape(', '.join(entry.flags))})}}" if entry.flags else ""
    return value + escape(entry.marks) + flags


def _number(text: str) -> str:
    """Return a number in math mode, or any other text in an mbox."""
    found = NUMBER.fullmatch(text)
    if found is None:
        return rf"\mbox{{{escape(text)}}}"
    mantissa, exponent = found.groups()
    # Not as a power of ten: a superscript note mark would look like a digit of the exponent.
    return mantissa if exponent is None else rf"{mantissa}\mathrm{{e}}{{{exponent}}}"
