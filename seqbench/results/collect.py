"""Find and read runs on disk: finished runs by their record, unfinished ones by their config."""

import difflib
import gc
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from seqbench.errors import ConfigError
from seqbench.runs import lock
from seqbench.runs.config_file import read_config
from seqbench.runs.events import last_step
from seqbench.runs.record import Record, RecordError, read_record
from seqbench.wording import plain

# The default of `output_dir`.
OUTPUTS = Path("outputs")


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


def run_folders(path: Path) -> Iterator[Path]:
    """Yield the run folders at or below `path`, in sorted order.

    `path` may also be a `record.json`. Subfolders of a run folder are not searched, and symbolic
    links inside `path` are not followed.
    """
    if path.name == "record.json" and path.is_file():
        path = path.parent
    waiting = [os.fspath(path)]
    while waiting:
        folder = waiting.pop()
        # Most folders are finished runs: checking for one file is faster than listing all.
        if os.path.isfile(f"{folder}/record.json"):  # noqa: PTH113
            yield Path(folder)
            continue
        try:
            with os.scandir(folder) as entries:
                names = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
        except OSError:  # deleted in the meantime, or no permission
            continue
        if "record.json" in names or "config.yaml" in names:
            yield Path(folder)
            continue
        inner = sorted((name for name, is_folder in names.items() if is_folder), reverse=True)
        waiting += [f"{folder}/{name}" for name in inner]


def output_folder(output_dir: Path) -> Path:
    """Return the output folder to read: the default is also found from inside it.

    Args:
        output_dir: as the user gives it, or `OUTPUTS`.
    """
    if output_dir != OUTPUTS or output_dir.exists():
        return output_dir
    above = (Path(*[os.pardir] * i) for i in range(len(Path.cwd().parents) + 1))
    return next((folder for folder in above if (folder / "runs").is_dir()), output_dir)


def places(output_dir: Path, names: Sequence[str] = ("runs",)) -> list[Path]:
    """Return the subfolders of these names in an output folder; the folder itself without them."""
    folder = output_folder(output_dir)
    inside = [folder / name for name in names if (folder / name).is_dir()]
    return inside or [folder / names[0] if folder == OUTPUTS else folder]


def find_run(run: str, output_dir: Path) -> Path:
    """Return the folder of a run.

    Args:
        run: a run id, a unique prefix of one, the path of a run folder or of a folder with a single
            run, or `FOLDER/ID`.
        output_dir: where runs are written; its subfolders `runs` and `reference` are searched.

    Raises:
        ConfigError: if no run or more than one matches.
    """
    path = Path(run)
    if path.name == "record.json":
        path = path.parent
    if any((path / name).is_file() for name in ("record.json", "config.yaml")):
        return path
    name, where = run, output_folder(output_dir)
    if os.sep in run and not path.is_dir():
        name, where = path.name, path.parent
    folders: dict[str, Path] = {}
    for place in places(where, ("runs", "reference")):
        for folder in run_folders(place):
            folders.setdefault(folder.name, folder)
    matching = [known for known in folders if known.startswith(name)]
    if not matching and path.is_dir():
        folders = {folder.name: folder for folder in run_folders(path)}
        name, where, matching = "", path, list(folders)
    if name in folders or len(matching) == 1:
        return folders[name if name in folders else matching[0]]
    if matching:
        listed = ", ".join(sorted(matching)[:5]) + (", ..." if len(matching) > 5 else "")
        raise ConfigError(f"run '{run}' could be any of {len(matching)}: {listed}")
    if where != OUTPUTS and not where.is_dir():
        raise ConfigError(f"there is no folder '{where}'")
    near = difflib.get_close_matches(name, folders, n=1)
    hint = "`seqbench runs` lists them; FOLDER/ID names one of another folder"
    if near:
        hint = f"did you mean '{near[0]}'?"
    raise ConfigError(f"no run '{name}' in {where} ({hint})")


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
