"""Delete files of runs: checkpoints that completed runs do not need any more, or whole runs."""

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from seqbench.errors import RunError
from seqbench.runs.identity import RUN_ID
from seqbench.runs.run import BEST, LAST, PREVIOUS, Run

Status = Literal["completed", "diverged", "failed", "unfinished"]

# Checkpoints that a completed run keeps only to be continued.
SPARE = (LAST, PREVIOUS)


@dataclass(frozen=True)
class Waste:
    """The files of a run that can be deleted.

    Attributes:
        run: the run.
        status: how it ended; `unfinished` without a record.
        all_files: True if all files of the run are deleted.
        files: path -> size in bytes.
    """

    run: Run
    status: Status
    all_files: bool
    files: dict[Path, int]

    @property
    def size(self) -> int:
        """Return the size of all files in bytes."""
        return sum(self.files.values())


def find_waste(run: Run, statuses: Collection[str] = ()) -> Waste | None:
    """Return the files of a run that can be deleted; `None` if all are to be kept.

    Only files that seqbench writes are counted, and no links are followed.

    Args:
        run: its folder must exist.
        statuses: runs with one of them are deleted entirely. Other completed runs lose only the
            checkpoints in `SPARE`.

    Raises:
        RecordError: if there is a record that cannot be read.
        RunError: if the folder holds links or special files, or nothing is to be kept of a folder
            that is not named by a run id.
    """
    record = run.record
    status: Status = "unfinished" if record is None else record.status
    all_files = status in statuses
    # Without its best weights, the last checkpoint holds the only ones.
    if not all_files and not (status == "completed" and (run.checkpoints / BEST).exists()):
        return None
    if all_files and not RUN_ID.fullmatch(run.folder.name):
        raise RunError(f"{run.folder} is not named by a run id, so it is not deleted")
    run.check_files()
    paths = [run.checkpoints / name for name in SPARE]
    if all_files:
        # The record and the config come last: if the process is killed in between, the run can
        # still be found, and deleted.
        paths += [run.checkpoints / BEST, *run.logs, run.history_path]
        paths += [run.record_path, run.config_path]
    drafts = [path.with_name(f".{path.name}.draft") for path in paths]
    files = {path: path.lstat().st_size for path in (*drafts, *paths) if path.is_file()}
    return Waste(run, status, all_files, files) if files else None


def delete_waste(run: Run, statuses: Collection[str] = ()) -> Waste | None:
    """Delete what `find_waste` returns, while this process holds the run; return it.

    Raises:
        RunLocked: if another process holds the run.
        RunError: if a file cannot be deleted, and for the reasons of `find_waste`.
    """
    with run.held():
        waste = find_waste(run, statuses)  # another process may have trained it in the meantime
        if waste is not None:
            for path in waste.files:
                path.unlink()
            if waste.all_files:
                for name in (".lease", ".lock"):
                    (run.folder / name).unlink(missing_ok=True)
                with suppress(OSError):  # files of the user stay
                    run.checkpoints.rmdir()
                    run.folder.rmdir()
        return waste
