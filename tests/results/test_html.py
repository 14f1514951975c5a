from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_factory import SOURCE, make_record

from seqbench.results.cells import aggregate
from seqbench.results.tables.comparison import Entry, Header, Row, Table, build_table
from seqbench.results.tables.markup import html

TAGS = ["table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td"]
TAGS += ["ul", "li", "br", "strong", "small"]
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</table><h1>&amp;",
    "' onmouseover='x",
    "<!--",
    "]]>&#60;script&#62;",
]


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

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data}")

    def handle_decl(self, decl):
        raise AssertionError(f"a declaration: {decl}")

    def handle_pi(self, data):
        raise AssertionError(f"an instruction: {data}")


def build(records, paper=None) -> Table:
    return build_table(aggregate(records), SOURCE, paper)


def test_a_table_with_headers_bounds_and_notes():
    records = [make_record(seed=s, value=0.1 + s / 100) for s in range(3)]
    records += [
        make_record(model="lstm", seed=0, value=0.2),
        make_record("smnist", trainer__epochs=20, value=0.98),
    ]
    text = html(build(records))
    outline = Outline(text)
    assert set(outline.tags) == set(TAGS)
    assert outline.caption == "Test scores"
    assert outline.rows[:-1] == [
        ["model", "adding T=600MSE ↓ (full)", "smnist T=784accuracy % ↑ (full)"],
        ["lstm", "0.200 (n=1)", ""],
        ["tcn", "0.110 ± 0.025 (n=3)", "98.0 (n=1)"],
        ["without memory", "0.167", "10.0"],
        ["best possible", "0", ""],
    ]
    assert "<strong>0.110 ± 0.025</strong>" in text
    assert text.count("<tbody>") == 2
    assert "fewer than 3 seeds give no interval" in outline.rows[-1][0]


def test_a_table_of_nothing_but_failures_has_one_body():
    text = html(build([make_record("char_ptb", status="failed", value=None)]))
    assert Outline(text).rows[1] == ["tcn", "- (1 failed)"]


def test_headers_say_what_they_head():
    text = html(build([make_record()], "tcn2018"))
    outline = Outline(text)
    assert ("scope", "col") in outline.attributes
    assert ("scope", "row") in outline.attributes
    assert ("colspan", "3") in outline.attributes
    assert {name for name, _ in outline.attributes} == {"scope", "colspan"}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text(name):
    outline = Outline(html(build([make_record(task=name, model=name, budget=name)])))
    assert set(outline.tags) <= set(TAGS)
    assert outline.rows[1][0] == name
    assert outline.rows[0][1].startswith(name)
    assert {key for key, _ in outline.attributes} == {"scope", "colspan"}


@given(st.text(), st.text())
def test_any_text_is_text(one, two):
    entry = Entry(one, two, flags=(two,), marks=one, best=True)
    table = Table(one, (Header(two, one),), (Row(two, (entry,)),), (one, two))
    outline = Outline(html(table))
    assert set(outline.tags) == set(TAGS)
    assert {key for key, _ in outline.attributes} == {"scope", "colspan"}
