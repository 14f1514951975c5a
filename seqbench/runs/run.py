"""A run's folder: who may write to it, and what stands in it.

outputs/runs/<task>/<model>/<run_id>/
    config.yaml     the resolved configuration
    events.jsonl    metrics, one JSON object a line
    history.jsonl   starts, interruptions and resumes, with step, host and time
    record.json     written once, when the run is over
    checkpoints/    last and best
    log.txt         what a person would have seen
"""

import json
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from seqbench.errors import RunError
from seqbench.runs import lock
from seqbench.runs.config_file import write_config
from seqbench.runs.identity import run_id
from seqbench.runs.record import Record, read_record, write_record


class Run:
    """A run on disk.

    Args:
        folder: the run's folder; made when something is first written.
        run_id: 12 hex digits that name its configuration.
    """

    def __init__(self, folder: Path, run_id: str) -> None:
        self.folder = folder
        self.run_id = run_id
        self.record_path = folder / "record.json"
        self.events_path = folder / "events.jsonl"
        self.checkpoints = folder / "checkpoints"
        self.log_path = folder / "log.txt"

    @classmethod
    def of(cls, config: dict[str, Any]) -> "Run":
        """The run that a resolved configuration names."""
        name = run_id(config)
        choices = config["choices"]
        parts = Path(config["output_dir"]) / "runs" / choices["task"] / choices["model"] / name
        return cls(parts, name)

    @property
    def record(self) -> Record | None:
        """The record, once the run is over."""
        return read_record(self.record_path) if self.record_path.exists() else None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the run for this process; the lock dies with its holder.

        Raises:
            RunError: another process holds it, or the folder cannot be written.
        """
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            for path in (self.checkpoints, *self.folder.iterdir(), *self.checkpoints.iterdir()):
                # Whoever sent this folder could have us write to, or empty, one of our own.
                with suppress(FileNotFoundError):  # its holder may be putting a draft in place
                    mode = path.lstat().st_mode
                    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                        raise RunError(
                            f"{path} is a link or no file: a run writes into its folder only"
                        )
            with lock.held(self.folder, f"run {self.run_id}"):
                yield
        except OSError as error:
            where = error.filename or self.folder
            reason = error.strerror or error
            raise RunError(f"run {self.run_id} stopped: {reason}: {where}") from error

    def write_config(self, config: dict[str, Any]) -> None:
        """Keep the resolved configuration."""
        write_config(self.folder / "config.yaml", config)

    def append_history(self, event: str, **facts: Any) -> None:
        """Note a start, an interruption or a resume, with host and time."""
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        line = {"event": event, **facts, "host": socket.gethostname(), "time": now}
        with (self.folder / "history.jsonl").open("ab+") as file:
            # A line that a full disk cut off must not spoil the next one.
            file.seek(max(0, file.tell() - 1))
            torn = file.read(1) not in (b"", b"\n")
            file.write(b"\n" * torn + json.dumps(line).encode() + b"\n")

    @contextmanager
    def log(self) -> Iterator[Callable[[str], None]]:
        """A function that adds a line to the run's log."""
        with self.log_path.open("a", encoding="utf-8", buffering=1) as file:
            yield lambda line: print(line, file=file)

    def finish(self, record: Record) -> None:
        """Write the record: the run is over."""
        write_record(self.record_path, record)

    def start_over(self) -> None:
        """Forget what an earlier attempt left, but for its history."""
        self.record_path.unlink(missing_ok=True)
        # previous, last, best, and then what they count on: killed at any point in between, the run
        # can still go on from what is left.
        for path in sorted(self.checkpoints.glob("*"), reverse=True):
            path.unlink()
        for path in (self.events_path, self.log_path):
            path.unlink(missing_ok=True)


class EventLog:
    """Metrics of a run, appended one JSON object a line.

    Args:
        path: the file.
        offset: bytes that belong to this run; what stands behind was written after the checkpoint
            that the run resumes from, and is cut off.

    Raises:
        RunError: there are fewer bytes than that.
    """

    def __init__(self, path: Path, offset: int) -> None:
        self.file = path.open("ab")
        if self.file.tell() < offset:
            raise RunError(
                f"{path} has lost events that the checkpoint counts on; "
                "--force starts the run again"
            )
        self.file.truncate(offset)
        self.file.seek(offset)

    def append(self, event: dict[str, Any]) -> None:
        """Write one event; it is on its way to disk when this returns."""
        line = json.dumps({k: finite(v) for k, v in event.items()}, allow_nan=False)
        self.file.write(line.encode() + b"\n")
        self.file.flush()

    def sync(self) -> None:
        """See to it that all events are on disk."""
        os.fsync(self.file.fileno())

    @property
    def offset(self) -> int:
        """Bytes written so far."""
        return self.file.tell()

    def close(self) -> None:
        self.file.close()


def finite(value: Any) -> Any:
    """JSON knows no NaN: a number that is none is written as null."""
    return None if isinstance(value, float) and not abs(value) < float("inf") else value
