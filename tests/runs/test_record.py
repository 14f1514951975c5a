import json
import math
import os
import re
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from record_factory import make_record

from seqbench.errors import RunError, SeqbenchError
from seqbench.runs.record import Record, RecordError, Score, read_record, write_record

KEYS = sorted(field.name for field in fields(Record))
NUMBERS = st.floats(allow_nan=True) | st.integers() | st.booleans() | st.none()
JSON = st.recursive(
    NUMBERS | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def test_reading_a_written_record_returns_an_equal_record(tmp_path):
    record = make_record()
    reordered = replace(record, config=dict(reversed(record.config.items())))
    for name, written in (("a.json", record), ("b.json", reordered)):
        write_record(tmp_path / name, written)
        assert read_record(tmp_path / name) == record
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_numbers_become_null(tmp_path, value):
    path = tmp_path / "record.json"
    parts = {"metrics": {"test": {"mse": value}}, "notes": {"slope": value}}
    parts |= {"measured": {"nested": [{"throughput": value}]}}
    score = Score(metric="mse", split="test", value=value, direction="min")
    write_record(path, replace(make_record(), score=score, **parts))
    assert not re.search("NaN|Infinity", path.read_text())
    read = read_record(path)
    assert read.metrics == {"test": {"mse": None}}
    assert read.score.value is None
    assert read.notes == {"slope": None}
    assert read.measured == {"nested": [{"throughput": None}]}
    # A record that another program wrote may contain NaN and infinity.
    text = json.dumps(make_record().to_json() | {"baseline": value, "notes": {"x": value}})
    path.write_text(text.replace('"optimum": 0.0', '"optimum": 1e999'))
    read = read_record(path)
    assert (read.baseline, read.optimum, read.notes) == (None, None, {"x": None})


def test_a_whole_number_too_large_for_a_float_is_null(tmp_path):
    path = tmp_path / "record.json"
    facts = make_record().to_json() | {"measured": {"throughput": 10**308, "threads": -1}}
    path.write_text(json.dumps(facts | {"baseline": 10**400}))
    read = read_record(path)
    assert (read.baseline, read.measured) == (None, {"throughput": None, "threads": -1})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": "0"}, "seed must be a whole number, not text"),
        ({"seed": True}, "seed must be a whole number, not true or false"),
        ({"seed": None}, "seed must be a whole number, not null"),
        ({"task": 3}, "task must be text, not a number"),
        ({"status": "done"}, "status must be one of completed, diverged, failed"),
        (
            {"metrics": {"test": {"mse": "x"}}},
            "metrics.test.mse must be a number or null, not text",
        ),
        ({"metrics": {"test": 1}}, "metrics.test must be an object, not a number"),
        ({"metrics": {"te\nst": 1}}, "'metrics.te\\nst' must be an object, not a number"),
        ({"data": {"train": 1}}, "data.train must be text, not a number"),
        ({"score": {"metric": "mse", "split": "test", "value": 1}}, "score.direction is missing"),
        ({"score": []}, "score must be an object, not a list"),
        ({"baseline": 10**400}, "baseline is too large a number"),
        ({"config": None}, "config must be an object, not null"),
        ({"schema": 2}, "schema 2 is newer than this seqbench reads (1): upgrade seqbench"),
        ({"schema": 0}, "schema must be 1 or more, not 0"),
        ({"schema": "1"}, "schema must be a whole number, not text"),
    ],
)
def test_an_invalid_record_raises_one_line_that_names_the_key(change, message):
    with pytest.raises(RecordError) as caught:
        Record.from_json(make_record().to_json() | change)
    assert str(caught.value) == message
    assert isinstance(caught.value, SeqbenchError)


# Missing in records of earlier versions.
OPTIONAL = ("schema", "notes", "code", "defaults", "naive")


@pytest.mark.parametrize("key", [key for key in KEYS if key not in OPTIONAL])
def test_a_missing_key_raises_record_error(key):
    obj = make_record().to_json()
    del obj[key]
    with pytest.raises(RecordError, match=f"^{key} is missing$"):
        Record.from_json(obj)


def test_notes_and_code_are_optional_and_unknown_keys_are_dropped():
    obj = make_record().to_json()
    del obj["notes"], obj["code"]
    record = Record.from_json(obj | {"colour": "blue"})
    assert record.notes == record.code == {}
    assert "colour" not in record.to_json()
    assert isinstance(record.metrics["test"]["mse"], float)


@given(JSON)
def test_arbitrary_json_raises_record_error(obj):
    with pytest.raises(RecordError):
        Record.from_json(obj)


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(KEYS), JSON, min_size=1, max_size=3))
def test_a_changed_record_is_valid_or_raises_record_error(changes):
    try:
        record = Record.from_json(make_record().to_json() | changes)
    except RecordError as error:
        error_message = str(error)
    else:
        error_message = ""
        text = json.dumps(record.to_json(), allow_nan=False)
        assert Record.from_json(json.loads(text)).to_json() == record.to_json()
        numbers = [v for values in record.metrics.values() for v in values.values()]
        numbers += [record.baseline, record.optimum]
        assert all(v is None or math.isfinite(v) for v in numbers)
    assert "\n" not in error_message


def test_deep_nesting_and_a_missing_file_raise_record_error(tmp_path):
    (tmp_path / "record.json").write_text("[" * 100_000)
    for name, reason in (("record.json", "not JSON"), ("none.json", "No such file")):
        with pytest.raises(RecordError, match=reason):
            read_record(tmp_path / name)


def test_a_failed_write_keeps_the_old_record_and_no_temporary_file(tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    write_record(path, make_record(seed=0))

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(RunError, match="No space left on device"):
        write_record(path, make_record(seed=1))
    monkeypatch.undo()
    assert read_record(path).seed == 0
    assert [file.name for file in tmp_path.iterdir()] == ["record.json"]


def test_writing_to_a_missing_folder_raises_run_error(tmp_path):
    with pytest.raises(RunError, match="cannot write"):
        write_record(tmp_path / "gone" / "record.json", make_record())
