import json
import math
import os
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


def test_a_record_comes_back_as_it_was_written(tmp_path):
    record = make_record()
    write_record(tmp_path / "record.json", record)
    assert read_record(tmp_path / "record.json") == record
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_equal_records_are_equal_bytes_whatever_the_order_of_their_keys(tmp_path):
    record = make_record()
    turned = replace(record, config=dict(reversed(record.config.items())))
    write_record(tmp_path / "a.json", record)
    write_record(tmp_path / "b.json", turned)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_written_as_null_and_read_as_none(tmp_path, value):
    record = replace(
        make_record(),
        metrics={"test": {"mse": value}},
        score=Score(metric="mse", split="test", value=value, direction="min"),
        notes={"slope": value},
        measured={"nested": [{"throughput": value}]},
    )
    write_record(tmp_path / "record.json", record)
    text = (tmp_path / "record.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    read = read_record(tmp_path / "record.json")
    assert read.metrics == {"test": {"mse": None}}
    assert read.score is not None
    assert read.score.value is None
    assert read.notes == {"slope": None}
    assert read.measured == {"nested": [{"throughput": None}]}


def test_a_nan_in_a_file_of_somebody_else_is_no_number(tmp_path):
    text = json.dumps(make_record().to_json() | {"baseline": math.nan, "notes": {"x": math.inf}})
    (tmp_path / "record.json").write_text(text.replace('"optimum": 0.0', '"optimum": 1e999'))
    record = read_record(tmp_path / "record.json")
    assert record.baseline is None
    assert record.optimum is None
    assert record.notes == {"x": None}


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
def test_a_wrong_record_costs_one_line_that_names_the_key(change, message):
    with pytest.raises(RecordError) as caught:
        Record.from_json(make_record().to_json() | change)
    assert str(caught.value) == message
    assert isinstance(caught.value, SeqbenchError)


@pytest.mark.parametrize("key", [key for key in KEYS if key not in ("schema", "notes", "code")])
def test_every_key_must_be_there(key):
    obj = make_record().to_json()
    del obj[key]
    with pytest.raises(RecordError, match=f"^{key} is missing$"):
        Record.from_json(obj)


def test_notes_and_code_may_be_missing_and_unknown_keys_are_dropped():
    obj = make_record().to_json()
    del obj["notes"], obj["code"]
    record = Record.from_json(obj | {"colour": "blue"})
    assert record.notes == record.code == {}
    assert "colour" not in record.to_json()


def test_whole_numbers_are_taken_for_real_ones():
    record = Record.from_json(make_record().to_json() | {"metrics": {"test": {"mse": 1}}})
    assert isinstance(record.metrics["test"]["mse"], float)


@given(JSON)
def test_anything_is_a_record_or_a_record_error(obj):
    with pytest.raises(RecordError):
        Record.from_json(obj)


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(KEYS), JSON, min_size=1, max_size=3))
def test_a_changed_record_is_a_record_or_a_record_error(changes):
    try:
        record = Record.from_json(make_record().to_json() | changes)
    except RecordError as error:
        message = str(error)
    else:
        message = ""
    assert "\n" not in message
    if message:
        return
    text = json.dumps(record.to_json(), allow_nan=False)
    again = Record.from_json(json.loads(text))
    assert again.to_json() == record.to_json()
    numbers = [v for values in record.metrics.values() for v in values.values()]
    assert all(v is None or math.isfinite(v) for v in [*numbers, record.baseline, record.optimum])


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_file_is_a_record_or_a_record_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("fuzz") / "record.json"
    path.write_bytes(content)
    with pytest.raises(RecordError, match=r"record\.json: "):
        read_record(path)


def test_endless_nesting_is_no_json(tmp_path):
    (tmp_path / "record.json").write_text("[" * 100_000)
    with pytest.raises(RecordError, match="not JSON"):
        read_record(tmp_path / "record.json")


def test_a_missing_record_is_said_to_be_missing(tmp_path):
    with pytest.raises(RecordError, match="No such file"):
        read_record(tmp_path / "record.json")


def test_a_failing_write_leaves_the_old_record_and_no_draft(tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    write_record(path, make_record(seed=0))

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left on device"):
        write_record(path, make_record(seed=1))
    monkeypatch.undo()
    assert read_record(path).seed == 0
    assert [file.name for file in tmp_path.iterdir()] == ["record.json"]


def test_a_folder_that_is_not_there_is_a_run_error(tmp_path):
    with pytest.raises(RunError, match="cannot write"):
        write_record(tmp_path / "gone" / "record.json", make_record())
