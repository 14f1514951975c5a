"""A job of a sweep: one run, to be trained in some process, somewhere."""

import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from seqbench.configuration import Config, check
from seqbench.errors import Held, SeqbenchError
from seqbench.experiment import run
from seqbench.runs.record import Record
from seqbench.runs.run import Run
from seqbench.training import checkpoint
from seqbench.training.trainer import Interrupted

State = Literal["new", "resume", "completed", "failed", "diverged"]
How = Literal["completed", "failed", "diverged", "killed", "interrupted", "pruned", "held"]


@dataclass(frozen=True, eq=False)
class Job:
    """One run of a sweep. It travels to the process that trains it.

    Attributes:
        words: the overrides that it was composed of.
        config: composed of them, checked.
        run: that it names, on disk.
        output: the file that takes what the process prints, were it a crash of Python itself.
        retry: train it again if it failed or diverged.
        force: train it again whatever is there.
    """

    words: tuple[str, ...]
    config: Config
    run: Run
    output: Path
    retry: bool = False
    force: bool = False

    @property
    def label(self) -> str:
        """Task, model and seed: what a person looks for first."""
        choices = self.config["choices"]
        return f"{choices['task']} {choices['model']} seed={self.config['seed']}"

    def state(self) -> State:
        """How far the run has come, on disk.

        Raises:
            RecordError: there is a record, and it cannot be read.
        """
        record = self.run.record
        if record is not None:
            return record.status
        return "resume" if (self.run.checkpoints / checkpoint.LAST).exists() else "new"

    def is_due(self) -> bool:
        """Whether it is to be trained: it is not over, or it is to be trained again."""
        if self.force:
            return True  # a damaged record must not stand in its way
        state = self.state()
        return state in ("new", "resume") or (self.retry and state in ("failed", "diverged"))


@dataclass(frozen=True)
class Ending:
    """How a job ended: by its record, or else by what was seen of its process.

    Attributes:
        how: in a word; `killed`: the process died, and the run goes on from its checkpoint when it
            is asked for again; `held`: another process is training it.
        reason: in a line, if it did not complete.
        log: the file that says more.
        score: of a run that completed, on test.
        code: the exit code that tells of it.
        signal: that interrupted it, by number.
    """

    how: How
    reason: str = ""
    log: Path | None = None
    score: float | None = None
    code: int = 1
    signal: int = 0


def perform(job: Job) -> Ending:
    """Train a job's run in this process; whatever happens is an ending."""
    try:
        check(job.config)  # finds the user's modules in a process that has not composed it
        record = run(job.config, retry=job.retry, force=job.force)
    except Interrupted as stop:
        return Ending("interrupted", str(stop), signal=stop.signal)
    except Held as error:
        return Ending("held", str(error))
    except (KeyboardInterrupt, SystemExit):
        return Ending("interrupted", "stopped at once")
    except SeqbenchError as error:
        return Ending("failed", str(error), code=error.exit_code)
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        return Ending("failed", reason, job.output)
    return of_record(record, job.run)


def of_record(record: Record, folder: Run) -> Ending:
    """The ending that a record tells of."""
    log = None if record.status == "completed" else folder.log_path
    score = record.score.value if record.score else None
    return Ending(record.status, record.error or "", log, score)
