"""Define a job of a sweep, which trains one run in some process, and how a job ends."""

import faulthandler
import os
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from seqbench.config import Config
from seqbench.config.check import check
from seqbench.errors import Interrupted, RunLocked, SeqbenchError, typed_line
from seqbench.experiment import run
from seqbench.runs.record import Record, RecordError
from seqbench.runs.run import Run
from seqbench.training import checkpoint

State = Literal["new", "resume", "completed", "failed", "diverged"]
How = Literal["completed", "failed", "diverged", "killed", "interrupted", "pruned", "held"]


@dataclass(frozen=True, eq=False)
class Job:
    """One run of a sweep, sent by pickle to the process that trains it.

    Attributes:
        words: overrides that `config` is composed from.
        config: composed and checked config.
        run: the run on disk that `config` names.
        output: file for all that the process prints, a crash of Python itself included.
        retry: train the run again if it failed or diverged.
        force: train the run again in any case.
    """

    words: tuple[str, ...]
    config: Config
    run: Run
    output: Path
    retry: bool = False
    force: bool = False

    @property
    def label(self) -> str:
        """Return task, model and seed as the job's short name."""
        choices = self.config["choices"]
        return f"{choices['task']} {choices['model']} seed={self.config['seed']}"

    @property
    def record(self) -> Record | None:
        """Return the run's record; `None` if it is missing or unreadable."""
        with suppress(RecordError):
            return self.run.record
        return None

    def state(self) -> State:
        """Return the run's state on disk.

        Raises:
            RecordError: if the record cannot be read.
        """
        record = self.run.record
        if record is not None:
            return record.status
        return "resume" if (self.run.checkpoints / checkpoint.LAST).exists() else "new"

    def is_due(self) -> bool:
        """Return True if the run is not over, or if `retry` or `force` asks to train it again.

        Raises:
            RecordError: if the record cannot be read, unless `force` is set.
        """
        if self.force:
            return True  # without reading the record, which may be damaged
        state = self.state()
        return state in ("new", "resume") or (self.retry and state in ("failed", "diverged"))

    def take_output(self) -> None:
        """Redirect all that this process prints to `output`."""
        file = os.open(self.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)
        faulthandler.enable()

    def needs_retry(self, ending: "Ending") -> bool:
        """Return True if a failure is on record, so that only --retry or --force repeats it."""
        return ending.how in ("failed", "diverged") and self.record is not None


@dataclass(frozen=True)
class Ending:
    """The ending of a job: from its record, else from the exit of its process.

    Attributes:
        how: `completed`, `failed` and `diverged`: the status of the record; `killed`: the process
            died, and the next sweep resumes the run from its checkpoint; `interrupted`: stopped
            before it was over; `pruned`: stopped by a search; `held`: another process trains it.
        reason: one line, if the job did not complete.
        log: file with details.
        score: test score of a run that completed.
        code: exit code of the error.
        signal: number of the signal that interrupted the job; 0 if none did.
    """

    how: How
    reason: str = ""
    log: Path | None = None
    score: float | None = None
    code: int = 1
    signal: int = 0


def train_job(job: Job) -> Ending:
    """Train a job's run in this process and return its ending; raise nothing."""
    try:
        check(job.config)  # also makes the user's modules importable in this process
        record = run(job.config, retry=job.retry, force=job.force)
    except Interrupted as stop:
        return Ending("interrupted", str(stop), signal=stop.signal)
    except RunLocked as error:
        return Ending("held", str(error))
    except (KeyboardInterrupt, SystemExit):
        return Ending("interrupted", "stopped at once")
    except SeqbenchError as error:
        return Ending("failed", str(error), code=error.exit_code)
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        return Ending("failed", typed_line(error), job.output)
    return of_record(record, job.run)


def of_record(record: Record, folder: Run) -> Ending:
    """Return the ending that a record describes."""
    log = None if record.status == "completed" else folder.log_path
    score = record.score.value if record.score else None
    return Ending(record.status, record.error or "", log, score)
