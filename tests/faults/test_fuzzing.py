"""Random content in the files of a run is read as far as it is valid, or refused in one line."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from seqbench.cli import compare, show
from seqbench.cli.table_view import show_table
from seqbench.config import trust
from seqbench.errors import ConfigError, SeqbenchError
from seqbench.results import sql
from seqbench.results.cells import aggregate
from seqbench.results.collect import Collected, collect, read_unfinished
from seqbench.results.summary import columns
from seqbench.results.tables import export
from seqbench.results.tables.comparison import build_table
from seqbench.results.tables.markup import RENDERERS
from seqbench.runs.config_file import read_config, write_config
from seqbench.runs.events import last_step, read_events
from seqbench.runs.run import Run

fuzz = settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
NUMBERS = st.floats() | st.integers(-(10**320), 10**320) | st.booleans() | st.none()
JSON = st.recursive(
    NUMBERS | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.fixture
def finished(undisturbed) -> Run:
    """Provide a completed run."""
    torch.set_flush_denormal(False)  # as a run leaves it, hypothesis refuses to work
    return Run.of(undisturbed)


def mutated(whole: bytes) -> st.SearchStrategy[bytes]:
    """Cut pieces out of a file, and insert others."""
    piece = st.binary(max_size=4) | st.sampled_from(
        [b"\n", b"[[", b"{}", b"NaN", b"1e999", b"\x1b["]
    )
    edit = st.tuples(st.integers(0, len(whole)), st.integers(0, 9), piece)

    def apply(edits: list[tuple[int, int, bytes]]) -> bytes:
        content = whole
        for place, length, new in edits:
            content = content[:place] + new + content[place + length :]
        return content

    return st.lists(edit, min_size=1, max_size=4).map(apply)


def drawn(data: st.DataObject, path: Path) -> bytes:
    """Return a strategy for the new content of a file."""
    return data.draw(mutated(path.read_bytes()) | st.binary(max_size=60))


def like(value: object) -> st.SearchStrategy[object]:
    """Return a strategy for values, mostly of the same type."""
    if isinstance(value, dict):
        keys = st.sampled_from([*sorted(value), "new"]) | st.text(max_size=5)
        same = st.dictionaries(keys, JSON)
        return same.map(lambda changes: value | changes) | same | JSON
    if isinstance(value, str):
        return st.text() | st.text().map(value.__add__) | JSON
    return NUMBERS | JSON


def one_line(error: SeqbenchError) -> None:
    assert str(error)
    assert "\n" not in str(error)


@given(data=st.data())
@fuzz
def test_any_events_are_events_or_refused(finished, data):
    path = finished.events_path
    event = st.dictionaries(st.sampled_from(["step", "split", "loss", "mse"]) | st.text(), JSON)
    lines = st.lists(event.map(json.dumps) | st.text(max_size=9)).map("\n".join).map(str.encode)
    content = data.draw(lines) if data.draw(st.booleans()) else drawn(data, path)
    record = finished.record
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "events.jsonl").write_bytes(content)
        try:
            events = read_events(folder / "events.jsonl")
        except SeqbenchError as error:
            one_line(error)
            events = None
        else:
            assert all(isinstance(event, dict) for event in events)
        assert isinstance(last_step(folder / "events.jsonl"), int | None)
        assert columns(read_unfinished(folder))["status"] == "unfinished"
        show.sections_of(read_unfinished(folder), folder)
        found = Collected([record], {record.run_id: folder})
        answer = sql.query("select count(*), max(step), avg(value) from events", found)
    assert len(answer.left_out) == (events is None)
    assert answer.rows[0][0] <= sum(map(len, events or []))


@given(data=st.data())
@fuzz
def test_a_run_goes_on_after_any_history(finished, data):
    with TemporaryDirectory() as name:
        folder = Run(Path(name))
        path = folder.folder / "history.jsonl"
        before = drawn(data, finished.folder / "history.jsonl")
        path.write_bytes(before)
        folder.append_history("resumed", step=3)
        after = path.read_bytes()
    assert after.startswith(before)
    line = json.loads(after.split(b"\n")[-2])
    assert (line["event"], line["step"]) == ("resumed", 3)


@given(data=st.data())
@fuzz
def test_any_record_is_shown_or_left_out(finished, data):
    path = finished.record_path
    if data.draw(st.booleans()):
        record = json.loads(path.read_bytes())
        for key in data.draw(st.sets(st.sampled_from(sorted(record)), max_size=5)):
            record[key] = data.draw(like(record[key]))
        content = json.dumps(record).encode()
    else:
        content = drawn(data, path)
    with TemporaryDirectory() as name:
        (Path(name) / "record.json").write_bytes(content)
        collected = collect([Path(name)])
        if not collected.records:
            (line,) = collected.unreadable
            assert line.isprintable()
            return
        (record,) = collected.records
        columns(record)
        show.sections_of(record, Path(name))
        compare.facts(record)
        cells = aggregate(collected.records)
        lines = export.rows_of(cells, "tcn2018")
        assert len(json.loads(export.to_json(lines))) == 1
        export.to_csv(lines)
        table = build_table(cells, "tcn2018")
        for render in RENDERERS.values():
            assert render(table).encode()
        with Console(file=None, quiet=True) as console:
            show_table(table, console)
        answer = sql.query("select * from runs", collected)
    assert len(answer.rows) + len(answer.left_out) == 1


@given(data=st.data())
@fuzz
def test_any_configuration_is_one_or_refused(finished, data):
    path = finished.folder / "config.yaml"
    with TemporaryDirectory() as name:
        folder = Path(name)
        if data.draw(st.booleans()):
            config = read_config(path)
            keys = [(key,) for key in config]
            keys += [(k, inner) for k, v in config.items() if isinstance(v, dict) for inner in v]
            for *nodes, key in data.draw(st.lists(st.sampled_from(keys), min_size=1, max_size=2)):
                node = config
                for outer in nodes:
                    node = node[outer]
                if isinstance(node, dict):
                    node[key] = data.draw(like(node.get(key)))
            write_config(folder / "config.yaml", config)
        else:
            (folder / "config.yaml").write_bytes(drawn(data, path))
        show.sections_of(read_unfinished(folder), folder)
        try:
            config = trust.read(folder / "config.yaml")
        except ConfigError as error:
            one_line(error)
            return
    assert Run.of(config).run_id
