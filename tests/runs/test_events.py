import json

import pytest

from seqbench.errors import RunError
from seqbench.runs.events import EventLog, last_step, read_events
from seqbench.runs.record import RecordError


def test_events_behind_the_offset_are_cut_off(tmp_path):
    path = tmp_path / "events.jsonl"
    events = EventLog(path, 0)
    events.append({"step": 1, "loss": 0.5})
    offset = events.offset
    events.append({"step": 2, "loss": 0.25})
    assert path.read_bytes() == b'{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25}\n'
    events.file.write(b'{"step": 3, "lo')  # killed in the middle of a line
    events.close()

    events = EventLog(path, offset)
    assert events.offset == offset
    events.append({"step": 2, "loss": 0.125})
    events.close()
    assert path.read_bytes() == b'{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.125}\n'
    EventLog(path, 0).close()
    assert path.read_bytes() == b""


def test_lost_events_are_not_made_up(tmp_path):
    """A power cut may truncate a file that was written."""
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"{}\n")
    with pytest.raises(RunError, match=r"events\.jsonl has lost events"):
        EventLog(path, 4)
    assert path.read_bytes() == b"{}\n"


def test_a_number_that_is_none_is_null(tmp_path):
    path = tmp_path / "events.jsonl"
    events = EventLog(path, 0)
    events.append({"step": 1, "a": float("nan"), "b": float("inf"), "c": -float("inf"), "d": 1.5})
    events.close()
    assert json.loads(path.read_text()) == {"step": 1, "a": None, "b": None, "c": None, "d": 1.5}


def test_a_torn_last_line_is_left_out_and_a_broken_one_before_it_is_an_error(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"step": 1, "split": "valid", "mse": null}\n{"step": 2, "spl')
    assert read_events(path) == [{"step": 1, "split": "valid", "mse": None}]
    path.write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    with pytest.raises(RecordError, match="line 2 is no event"):
        read_events(path)
    with pytest.raises(RecordError, match="No such file"):
        read_events(tmp_path / "gone.jsonl")


def test_the_last_step_of_a_long_log_is_that_of_its_last_whole_line(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text("".join(f'{{"step": {i}, "split": "train"}}\n' for i in range(5000)) + "{")
    assert path.stat().st_size > 2 * 65536
    assert last_step(path) == 4999
