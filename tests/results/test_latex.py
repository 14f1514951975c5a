import re
import shutil
import string
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_factory import SOURCE, make_record

from seqbench.results.cells import aggregate
from seqbench.results.tables.comparison import Entry, Header, Row, Table, build_table
from seqbench.results.tables.markup import ACCENTS, COMMANDS, escape_latex, latex

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
]


def build(records, paper=None) -> Table:
    return build_table(aggregate(records), SOURCE, paper)


def full_table() -> Table:
    """A table with everything that a table may have."""
    records = [
        make_record(task, model, seed, value=1e-4 * (seed + 1) * (1 + (model == "lstm")))
        for task in ("adding", "smnist", "char_ptb")
        for model in ("tcn", "lstm")
        for seed in range(3)
    ]
    records += [make_record("copy", "tcn", source="older"), make_record("copy", "gru")]
    records += [make_record("copy", "gru", seed=1, status="diverged")]
    return build(records, "tcn2018")


def hostile_table() -> Table:
    entry = Entry("0.5", "0.1", flags=tuple(HOSTILE), marks="¹²†", best=True)
    return Table(
        title=HOSTILE[0],
        columns=tuple(Header(name, name) for name in HOSTILE[:3]),
        rows=tuple(Row(name, (entry, None, Entry(name))) for name in HOSTILE),
        notes=tuple(HOSTILE),
    )


def lines_of(table: Table) -> list[str]:
    return latex(table).splitlines()


def test_models_down_tasks_across_in_booktabs():
    records = [make_record(seed=s, value=0.1 + s / 100) for s in range(3)]
    records += [make_record(model="lstm", seed=s, value=0.2 + s / 100) for s in range(3)]
    lines = lines_of(build(records))
    start = lines.index(r"\toprule")
    assert lines[start - 1] == r"\begin{tabular}{lr}"
    assert lines[start + 1 : start + 10] == [
        r"model & adding T=600 \\",
        r" & MSE $\downarrow$ (full) \\",
        r"\midrule",
        r"lstm & $0.210 \pm 0.025$ \\",
        r"tcn & {\boldmath$0.110 \pm 0.025$} \\",
        r"\midrule",
        r"without memory & $0.167$ \\",
        r"best possible & $0$ \\",
        r"\bottomrule",
    ]


def test_a_mark_is_no_digit_of_an_exponent_and_units_are_escaped():
    text = latex(full_table())
    assert r"$5.8\mathrm{e}{-5}$\textsuperscript{1}" in text
    assert r"accuracy \% $\uparrow$ (full)" in text
    assert r"char\_ptb T=400" in text


def test_flags_and_marks_are_shown():
    text = latex(full_table())
    assert r"{\footnotesize(n=1, 1 diverged)}" in text
    assert r"$^{\dagger}$ run with older code" in text
    assert re.search(r"\$0\.164\$\\textsuperscript\{\d\}", text)


def test_what_is_no_number_is_text():
    (line,) = [line for line in lines_of(build([make_record(status="failed")])) if "tcn" in line]
    assert line == r"tcn & $\mbox{-}$ {\footnotesize(1 failed)} \\"


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
        ("模", "{[}U+6A21{]}"),
        ("a\nb\x1b", "ab"),
    ],
)
def test_characters_are_escaped(text, expected):
    assert escape_latex(text) == expected


@given(st.text())
def test_escaped_text_is_ascii_with_balanced_braces_and_known_commands(text):
    escaped = escape_latex(text)
    assert escaped.isascii()
    assert escaped.isprintable()
    unprotected = re.sub(r"\\[{}$&%#_~^]", "", escaped)
    assert set(re.findall(r"\\([a-zA-Z]+)", unprotected)) <= {
        name
        for command in [*COMMANDS.values(), *ACCENTS.values()]
        for name in re.findall(r"\\([a-zA-Z]+)", command)
    }
    depth = 0
    for character in unprotected:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    assert not re.search("[%#&_]", unprotected)


def compiled(tmp_path: Path, *tables: Table) -> str:
    """The log of a document that holds these tables; fails unless it compiles."""
    pdflatex, tectonic = shutil.which("pdflatex"), shutil.which("tectonic")
    if not pdflatex and not tectonic:
        pytest.skip("neither pdflatex nor tectonic is installed")
    body = "\n".join(latex(table) for table in tables)
    (tmp_path / "t.tex").write_text(
        "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n"
        f"{body}\\end{{document}}\n"
    )
    options = ["-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape"]
    command = [pdflatex, *options, "t.tex"] if pdflatex else [str(tectonic), "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "t.pdf").stat().st_size > 1000
    return done.stdout


def test_a_full_table_compiles(tmp_path):
    log = compiled(tmp_path, full_table())
    assert "Missing character" not in log


def test_hostile_names_compile_and_run_nothing(tmp_path):
    log = compiled(tmp_path, hostile_table())
    assert "Missing character" not in log
    assert "/etc/passwd" not in log
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".aux", ".log", ".pdf", ".tex"]


def test_every_ascii_and_latin_character_compiles(tmp_path):
    latin = "".join(map(chr, range(0xA0, 0x180)))
    pairs = " ".join(2 * character for character in string.printable + latin)
    table = Table("all", (), tuple(Row(c, ()) for c in latin), (string.printable, latin, pairs))
    assert "Missing character" not in compiled(tmp_path, table)
