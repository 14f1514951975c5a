import re
import shutil
import string
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_factory import make_record

from seqbench.results.cells import aggregate
from seqbench.results.tables.comparison import build_table
from seqbench.results.tables.markup import (
    ACCENTS,
    COMMANDS,
    escape_latex,
    escape_markdown,
    html,
    latex,
    markdown,
)
from seqbench.results.tables.table import FACTOR, Entry, Header, Row, Table

TAGS = {"table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td"}
TAGS |= {"ul", "li", "br", "strong", "small"}
HOSTILE = [
    r"\input{/etc/passwd}\write18{id}\end{tabular}",
    "100%_of $x^2$ & #1 {~}",
    "[2cm] *x",
    "--x--- ,,y",
    "\"quoted\" 'single' `back` <<a>> |b|",
    "naïve Ångström façade ñ ő ž Ż í",
    "模型 модель 모델 λ → ß ﬁ 🙂",
    "a\nb\x1b[31m\\\\",
    "e\u0301 \u0301 \u200b\u202e",
    "?` !`",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</table><h1>&amp; <!-- ]]>&#60;script&#62;",
]


def sample_table() -> Table:
    """Return a table with the best of two means, a flag, a mark, bounds and notes."""
    records = [make_record(seed=s, value=0.1 + s / 100) for s in range(3)]
    records += [make_record(model="lstm", seed=s, value=0.5, source="older") for s in range(2)]
    records += [make_record("smnist", model="lstm", value=0.98), make_record("copy")]
    records += [make_record("copy", seed=1, status="failed")]
    return build_table(aggregate(records), "tcn2018")


def hostile_table() -> Table:
    entry = Entry("0.5", "0.1", flags=tuple(HOSTILE), marks="¹²†", best=True)
    return Table(
        title=HOSTILE[0],
        columns=tuple(Header(name, name) for name in HOSTILE[:3]),
        rows=tuple(Row(name, (entry, None, Entry(name))) for name in HOSTILE),
        notes=tuple(HOSTILE),
    )


def test_markdown():
    assert markdown(sample_table()).splitlines()[:10] == [
        "**Test scores beside tcn2018**",
        "",
        "| model | adding T=600 · MSE ↓ | published · tcn2018 |"
        " copy T=1000 · cross-entropy (nats) ↓ | published · tcn2018 |"
        " smnist T=784 · accuracy % ↑ | published · tcn2018 |",
        "|---|---:|---:|---:|---:|---:|---:|",
        "| lstm | 0.500†¹ (n=2) | 0.164 | | | 98.0 (n=1) | 87.2 |",
        "| tcn | **0.110 ± 0.025** (n=3) | 5.8e-5 | 1.00e-4 (n=1, 1 failed) | 3.5e-5² | | |",
        "| without memory | 0.167 | | 0.0204 | | 10.0 | |",
        "| best possible | 0 | | 0 | | | |",
        "",
        "- bold: best mean on its task, of several runs and equal training",
    ]


def test_latex_in_booktabs():
    lines = latex(sample_table()).splitlines()
    start = lines.index(r"\toprule")
    assert lines[start - 1] == r"\begin{tabular}{lrrrrrr}"
    best = r"{\boldmath$0.110 \pm 0.025$} {\footnotesize(n=3)}"
    best += r" & $5.8\mathrm{e}{-5}$"
    lost = r"$1.00\mathrm{e}{-4}$ {\footnotesize(n=1, 1 failed)}"
    assert lines[start + 3 : start + 10] == [
        r"\midrule",
        r"lstm & $0.500$$^{\dagger}$\textsuperscript{1} {\footnotesize(n=2)} & $0.164$ &  &"
        r"  & $98.0$ {\footnotesize(n=1)} & $87.2$ \\",
        rf"tcn & {best} & {lost} & $3.5\mathrm{{e}}{{-5}}$\textsuperscript{{2}} &  &  \\",
        r"\midrule",
        r"without memory & $0.167$ &  & $0.0204$ &  & $10.0$ &  \\",
        r"best possible & $0$ &  & $0$ &  &  &  \\",
        r"\bottomrule",
    ]
    assert r"smnist T=784 & published \\" in lines[start + 1]
    assert r"accuracy \% $\uparrow$" in lines[start + 2]
    assert any(line.startswith(r"$^{\dagger}$ runs with older code") for line in lines)
    failed = build_table(aggregate([make_record(status="failed")]))
    assert r"tcn & $\mbox{-}$ {\footnotesize(1 failed)} \\" in latex(failed).splitlines()


class Outline(HTMLParser):
    """Tags with their attributes, and the text of each cell; fails on what is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.caption = ""
        self.feed(text)
        self.close()
        assert self.open == []
        assert set(self.tags) <= TAGS
        assert {name for name, _ in self.attributes} <= {"scope", "colspan"}

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "caption" in self.open:
            self.caption += data
        elif "th" in self.open or "td" in self.open:
            self.rows[-1][-1] += data

    def refuse(self, data):
        raise AssertionError(f"not a tag: {data}")

    handle_comment = handle_decl = handle_pi = refuse


def test_html():
    text = html(sample_table())
    outline = Outline(text)
    assert set(outline.tags) == TAGS
    assert outline.caption == "Test scores beside tcn2018"
    assert outline.rows[0][:3] == ["model", "adding T=600MSE ↓", "publishedtcn2018"]
    assert [row[:2] for row in outline.rows[1:-1]] == [
        ["lstm", "0.500†¹ (n=2)"],
        ["tcn", "0.110 ± 0.025 (n=3)"],
        ["without memory", "0.167"],
        ["best possible", "0"],
    ]
    assert "<strong>0.110 ± 0.025</strong>" in text
    assert text.count("<tbody>") == 2
    assert {("scope", "col"), ("scope", "row"), ("colspan", "7")} <= set(outline.attributes)
    assert "fewer than 3 seeds give no interval" in outline.rows[-1][0]


@given(st.sampled_from(HOSTILE) | st.text(), st.sampled_from(HOSTILE) | st.text())
def test_any_text_is_text_in_html(one, two):
    entry = Entry(one, two, flags=(two,), marks=one, best=True)
    table = Table(one, (Header(two, one),), (Row(two, (entry,)),), (one, two))
    assert set(Outline(html(table)).tags) == TAGS


def test_hostile_names_stay_in_their_cell_of_markdown():
    name = "a|b`*<b>[x](y)\x1b[2J\n_z_ =1+1 $x$"
    record = make_record(model=name, budget=name)
    text = markdown(build_table(aggregate([record])))
    header = next(line for line in text.splitlines() if line.startswith("| model"))
    assert header.replace("\\|", "").count("|") == 3
    assert "\x1b" not in text
    assert "\\<b\\>" in text
    assert "\\[x\\](y)" in text
    assert escape_markdown("char_ptb _x_") == "char_ptb \\_x\\_"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"a\b", r"a\textbackslash{}b"),
        ("a_b{c}%$&#", r"a\_b\{c\}\%\$\&\#"),
        ("~^", r"\textasciitilde{}\textasciicircum{}"),
        ("[x]*", "{[}x{]}{*}"),
        ("a---b", "a-{}-{}-b"),
        ("a-b", "a-b"),
        ("?`", r"?{}\textquoteleft{}"),
        ("é", r"\'{e}"),
        ("e\u0301", r"\'{e}"),
        (f"{FACTOR}: a", r"$\times$$\div$: a"),
        ("模", "{[}U+6A21{]}"),
        ("a\nb\x1b", "ab"),
    ],
)
def test_characters_are_escaped_in_latex(text, expected):
    assert escape_latex(text) == expected


@given(st.text())
def test_escaped_text_is_ascii_with_balanced_braces_and_known_commands(text):
    escaped = escape_latex(text)
    assert escaped.isascii()
    assert escaped.isprintable()
    unprotected = re.sub(r"\\[{}$&%#_~^]", "", escaped)
    known = " ".join([*COMMANDS.values(), *ACCENTS.values()])
    names = r"\\([a-zA-Z]+)"
    assert set(re.findall(names, unprotected)) <= set(re.findall(names, known))
    depth = 0
    for character in unprotected:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    assert not re.search("[%#&_]", unprotected)


LATIN = "".join(map(chr, range(0xA0, 0x180)))
PAIRS = " ".join(2 * character for character in string.printable + LATIN)


@pytest.mark.parametrize(
    "table",
    [
        sample_table(),
        hostile_table(),
        Table("all", (), tuple(Row(c, ()) for c in LATIN), (string.printable, LATIN, PAIRS)),
    ],
    ids=["sample", "hostile", "characters"],
)
def test_a_table_compiles_and_runs_nothing(tmp_path: Path, table):
    pdflatex, tectonic = shutil.which("pdflatex"), shutil.which("tectonic")
    if not pdflatex and not tectonic:
        pytest.skip("neither pdflatex nor tectonic is installed")
    (tmp_path / "t.tex").write_text(
        "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n"
        f"{latex(table)}\\end{{document}}\n"
    )
    options = ["-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape"]
    command = [pdflatex, *options, "t.tex"] if pdflatex else [str(tectonic), "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "t.pdf").stat().st_size > 1000
    assert "Missing character" not in done.stdout
    assert "/etc/passwd" not in done.stdout
    assert {path.suffix for path in tmp_path.iterdir()} <= {".aux", ".log", ".pdf", ".tex"}
