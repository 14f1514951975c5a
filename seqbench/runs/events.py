"""Write and read a run's event log: its metrics, one JSON object per line.

A training event has `step`, `split` ("train"), `loss`, `lr` and, with clipping, `grad_norm`. An
evaluation has `step`, `split` and the metrics of the task. NaN and infinity are written as null.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any, TypeGuard

from seqbench.errors import RunError
from seqbench.runs import foreign, lock
from seqbench.runs.record import RecordError

# Bytes at the end of an event log that are searched for its last complete line.
TAIL_BYTES = 65536
# Limit of an event log in bytes: about ten million events.
LARGEST_LOG = 2**30


class EventLog:
    """The file of a run's metrics, one JSON object per line.

    `append` and `sync` raise `RunLocked` if another process has taken over the run.

    Args:
        path: the file.
        offset: bytes to keep; events written after the checkpoint that the run resumes from are
            cut off.

    Raises:
        RunError: if the file is shorter than `offset`.
    """

    def __init__(self, path: Path, offset: int) -> None:
        self.path = path
        self.file = path.open("ab")
        if self.file.tell() < offset:
            raise RunError(
                f"{path} has lost events that the checkpoint counts on; "
                "--force starts the run again"
            )
        self.file.truncate(offset)
        self.file.seek(offset)

    def append(self, event: dict[str, Any]) -> None:
        """Append one event and flush it to the system; `sync` makes it durable."""
        lock.check(self.path)
        line = json.dumps({k: finite(v) for k, v in event.items()}, allow_nan=False)
        self.file.write(line.encode() + b"\n")
        self.file.flush()

    def sync(self) -> None:
        """Write all events to disk."""
        lock.check(self.path)
        os.fsync(self.file.fileno())

    @property
    def offset(self) -> int:
        """Return the size of the file in bytes."""
        return self.file.tell()

    def close(self) -> None:
        self.file.close()


def finite(value: Any) -> Any:
    """Return `None` for NaN and infinity, which JSON does not have; else the value itself."""
    return None if isinstance(value, float) and not abs(value) < float("inf") else value


def read_events(path: Path) -> list[dict[str, Any]]:
    """Return the events of a run, without a truncated last line.

    Raises:
        RecordError: if the log cannot be read, or a line before the last is not an event.
    """
    try:
        lines = foreign.read(path, LARGEST_LOG).split(b"\n")
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror or error}") from error
    events = []
    for number, line in enumerate(lines, start=1):
        event = json_object(line)
        if event is not None:
            events.append(event)
        elif line.strip() and number < len(lines):
            raise RecordError(f"{path}: line {number} is no event")
    return events


def last_step(path: Path) -> int | None:
    """Return the step of the last complete event, reading only the end of the log."""
    steps = (event.get("step") for event in reversed(last_events(path)))
    return next((step for step in steps if isinstance(step, int)), None)


def last_events(path: Path, room: int = TAIL_BYTES) -> list[dict[str, Any]]:
    """Return the complete events in the last `room` bytes of a log; none if it is unreadable."""
    if not path.is_file():  # opening a pipe would block
        return []
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - room))
            lines = file.read().split(b"\n")
    except OSError:
        return []
    return [event for event in map(json_object, lines) if event]


def json_object(line: bytes) -> dict[str, Any] | None:
    """Return the JSON object of a line; `None` if it holds something else, or is cut off."""
    try:
        event = json.loads(line, parse_constant=lambda name: None)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


def is_number(value: object) -> TypeGuard[int | float]:
    """Return True if a value is a finite number; logs from elsewhere may hold anything."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max
