"""Manage a run's folder: its files, and which process may write to it.

outputs/runs/<task>/<model>/<run_id>/
    config.yaml     the resolved configuration
    events.jsonl    metrics, one JSON object a line
    history.jsonl   starts, interruptions and resumes, with step, host and time
    record.json     written once, when the run is over
    checkpoints/    last, previous and best
    log.txt         progress and outcome as lines of text
    confusion.json  predictions of the test by true class, of a task with classes
    forecasts.json  a few forecasts of the test, of a forecasting task
    evaluations.jsonl   scores of the best weights on other data, one JSON object a line
"""

import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from seqbench.errors import RunError
from seqbench.runs import lock
from seqbench.runs.atomic import append_line
from seqbench.runs.config_file import write_config
from seqbench.runs.find import OUTPUTS
from seqbench.runs.identity import run_id
from seqbench.runs.record import Record, read_record, write_record
from seqbench.user_files import make_folders

# Files in `checkpoints`.
LAST, PREVIOUS, BEST = "last.safetensors", "previous.safetensors", "best.safetensors"


class Run:
    """A run on disk.

    Args:
        folder: the run's folder, named by its run id; `held` creates it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run_id = folder.name
        self.config_path = folder / "config.yaml"
        self.record_path = folder / "record.json"
        self.history_path = folder / "history.jsonl"
        self.events_path = folder / "events.jsonl"
        self.checkpoints = folder / "checkpoints"
        self.log_path = folder / "log.txt"
        self.evaluations_path = folder / "evaluations.jsonl"
        self.confusion_path = folder / "confusion.json"
        self.forecasts_path = folder / "forecasts.json"

    @classmethod
    def of(cls, config: dict[str, Any]) -> "Run":
        """Return the run of a resolved config."""
        choices = config["choices"]
        runs = Path(config["output_dir"]) / "runs"
        return cls(runs / choices["task"] / choices["model"] / run_id(config))

    @classmethod
    def of_weights(cls, path: Path) -> "Run":
        """Return the run that a file in `checkpoints` belongs to."""
        return cls(path.absolute().parent.parent)

    @property
    def output_dir(self) -> Path | None:
        """Return the run's `output_dir`, `OUTPUTS` if it is the default; `None` outside of one."""
        # The end of a path such as `ID` or `../ID` does not name the folders above.
        is_partial = len(self.folder.parents) < 4 or ".." in self.folder.parts[-4:]
        parents = (self.folder.resolve() if is_partial else self.folder).parents
        if len(parents) < 4 or parents[2].name != "runs":
            return None
        return OUTPUTS if parents[3].resolve() == OUTPUTS.resolve() else parents[3]

    @property
    def record(self) -> Record | None:
        """Return the record; `None` before the run is over."""
        return read_record(self.record_path) if self.record_path.exists() else None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the run for this process; the lock is released when its holder dies.

        Raises:
            RunLocked: if another process holds the run.
            RunError: if the folder cannot be written, or holds links or special files.
        """
        try:
            make_folders(self.folder.parent)  # the run's own folder is its maker's
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            self.check_files()
            with lock.held(self.folder, f"run {self.run_id}"):
                yield
        except OSError as error:
            where = error.filename or self.folder
            reason = error.strerror or error
            raise RunError(f"run {self.run_id} stopped: {reason}: {where}") from error

    @property
    def logs(self) -> tuple[Path, ...]:
        """Return the files that training and evaluations of an attempt write."""
        of_test = self.confusion_path, self.forecasts_path
        return self.events_path, self.log_path, self.evaluations_path, *of_test

    def check_files(self) -> None:
        """Raise `RunError` if the folder holds links or special files.

        A link in a folder from elsewhere could make seqbench read or overwrite another file.
        """
        for folder in (self.folder, self.checkpoints):
            for path in folder.iterdir() if folder.is_dir() else ():
                with suppress(FileNotFoundError):  # the holder may be renaming a draft
                    mode = path.lstat().st_mode
                    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                        raise RunError(
                            f"{path} is a link or special file: a run uses files of its folder only"
                        )

    def write_config(self, config: dict[str, Any]) -> None:
        """Write the resolved config to config.yaml."""
        write_config(self.config_path, config)

    def append_history(self, event: str, **facts: Any) -> None:
        """Append an event, such as a start, interruption or resume, with host and time."""
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        line = {"event": event, **facts, "host": socket.gethostname(), "time": now}
        append_line(self.history_path, line)

    @contextmanager
    def log(self) -> Iterator[Callable[[str], None]]:
        """Yield a function that appends a line to the run's log."""
        with self.log_path.open("a", encoding="utf-8", buffering=1) as file:
            yield lambda line: print(line, file=file)

    def finish(self, record: Record) -> None:
        """Write the record, which marks the run as over."""
        write_record(self.record_path, record)

    def start_over(self) -> None:
        """Delete the files of an earlier attempt, except its config and history."""
        self.record_path.unlink(missing_ok=True)
        # Checkpoints previous, last and best, then the files that they need: if the process is
        # killed in between, the run can still resume from what is left.
        for path in sorted(self.checkpoints.glob("*"), reverse=True):
            path.unlink()
        for path in self.logs:
            path.unlink(missing_ok=True)
