"""Test paths of real files on the command line, read by Hydra's parser."""

import os
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbench.config.overrides import as_text, as_typed, quoted

NAMES = st.text("ab.한국 []()~,'\"\\=#$:{};&%@!+-", min_size=1, max_size=9)
# What a command line need not quote: the rest is quoted by the user.
PLAIN = NAMES.filter(lambda name: not set(name) & set(",'\"") and name == name.strip())


def swept(override):
    """Return the paths of a sweep's jobs; the sweeper and each job parse the override."""
    parser = OverridesParser.create()
    typed = parser.parse_override(as_text(override))
    if not typed.is_sweep_override():
        return [typed.value()]
    values = typed.sweep_string_iterator()
    return [parser.parse_override(as_text(f"task.path={value}")).value() for value in values]


@settings(max_examples=40)
@given(st.lists(PLAIN | NAMES.map(lambda name: (name,)), min_size=1, max_size=3))
def test_every_file_name_is_read_as_it_is(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("texts")
    paths = [f"{folder}/x{name if isinstance(name, str) else name[0]}" for name in names]
    for path in paths:
        Path(path).touch()
    typed = [p if isinstance(n, str) else quoted(p) for n, p in zip(names, paths, strict=True)]
    for form in (",".join(typed), f"choice({','.join(typed)})"):
        found = swept(f"task.path={form}")
        assert found == paths
        assert all(map(os.path.exists, found))


@given(st.sampled_from(["output_dir", "task.path"]), NAMES)
def test_a_path_that_is_printed_can_be_typed_again(key, name):
    composed = as_text(f"{key}={name}")
    [printed] = as_typed([f"++{composed}"])
    assert as_text(printed) == composed
    if name.isalnum():
        assert printed == f"{key}={name}", "no quotes where none are needed"


@pytest.mark.parametrize(
    ("value", "paths"),
    [
        ("my poems.txt,b.txt", ["my poems.txt", "b.txt"]),
        ("my poems.txt, b.txt", ["my poems.txt", "b.txt"]),
        ('choice("my poems.txt",b.txt)', ["my poems.txt", "b.txt"]),
        ("한국어.txt,b.txt", ["한국어.txt", "b.txt"]),
        ("~/r.txt,b.txt", ["~/r.txt", "b.txt"]),
        ("a(b).txt,b.txt", ["a(b).txt", "b.txt"]),
        ("'a,b.txt',it's.txt", ["a,b.txt", "it's.txt"]),
    ],
)
def test_paths_in_a_list(value, paths):
    assert swept(f"task.path={value}") == paths


def test_only_the_text_of_a_task_is_a_list():
    assert as_text("output_dir=a,b") == "output_dir='a,b'"
    assert as_text("data_dir=null") == "data_dir=null"
    assert as_text("task.path=a.txt,") == "task.path=a.txt,"
    assert as_text("seed=0,1") == "seed=0,1"
