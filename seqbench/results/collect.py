"""Read runs on disk: finished runs by their record, unfinished ones by their config."""

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from seqbench.errors import ConfigError
from seqbench.runs import lock
from seqbench.runs.config_file import read_config
from seqbench.runs.events import last_step
from seqbench.runs.find import run_folders
from seqbench.runs.record import Record, RecordError, read_record
from seqbench.wording import plain


@dataclass(frozen=True)
class Unfinished:
    """A run without a record: it is running, was interrupted, or crashed.

    Attributes:
        folder: the run's folder, outputs/runs/<task>/<model>/<run_id>.
        run_id: 12 hex digits that identify the config.
        task: the task's name.
        model: the model's name.
        config: the resolved config; empty if it cannot be read.
        steps: step of the last event; `None` before the first.
        touched: time of the last event, ISO 8601 in UTC.
        status: `running` if a process is training it now, else `unfinished`.
    """

    folder: Path
    run_id: str
    task: str
    model: str
    config: dict[str, Any]
    steps: int | None
    touched: str
    status: Literal["running", "unfinished"]


@dataclass(frozen=True)
class Collected:
    """The runs found below some folders.

    Attributes:
        records: the record of each finished run, without duplicates.
        folders: run_id -> the folder its record was found in.
        unfinished: folders with a config but no record.
        unreadable: an error message for each record that cannot be read.
    """

    records: list[Record] = field(default_factory=list)
    folders: dict[str, Path] = field(default_factory=dict)
    unfinished: list[Path] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def collect(paths: Iterable[Path]) -> Collected:
    """Read all records at or below `paths`.

    Of several copies of a run, the first completed one is kept, otherwise the first.
    """
    found: dict[str, tuple[Record, Path]] = {}
    unfinished: dict[Path, None] = {}
    result = Collected()
    with _no_garbage_collection():
        for folder in (folder for path in paths for folder in run_folders(path)):
            try:
                record = read_record(folder / "record.json")
            except RecordError as error:
                if (folder / "record.json").exists():
                    result.unreadable.append(plain(str(error)))
                else:
                    unfinished[folder] = None
                continue
            known = found.get(record.run_id)
            if known is None or (known[0].status != "completed" == record.status):
                found[record.run_id] = record, folder
    result.unfinished.extend(unfinished)
    result.records.extend(record for record, _ in found.values())
    result.folders.update({run_id: folder for run_id, (_, folder) in found.items()})
    return result


def read_run(folder: Path) -> Record | Unfinished:
    """Read the record of the run in a folder, or its state if it has no record.

    Raises:
        RecordError: if there is a record that cannot be read.
    """
    path = folder / "record.json"
    return read_record(path) if path.exists() else read_unfinished(folder)


def read_unfinished(folder: Path) -> Unfinished:
    """Return the state of a run without a record, from its config, event log and lock."""
    config: dict[str, Any] = {}
    with suppress(ConfigError):
        config = read_config(folder / "config.yaml")
    events = folder / "events.jsonl"
    moment, held = 0.0, False
    with suppress(OSError):
        moment = (events if events.exists() else folder).stat().st_mtime
    with suppress(OSError):  # no permission to read the lease
        held = lock.is_held(folder)
    return Unfinished(
        folder=folder,
        run_id=folder.name,
        task=folder.parent.parent.name,
        model=folder.parent.name,
        config=config,
        steps=last_step(events),
        touched=datetime.fromtimestamp(moment, timezone.utc).isoformat(timespec="seconds"),
        status="running" if held else "unfinished",
    )


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    # Records hold no reference cycles; garbage collection doubles the time to read 10,000.
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
