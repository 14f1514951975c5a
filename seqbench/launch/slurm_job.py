"""Identify a job on a SLURM cluster, train it on its node, and write its ending to a file."""

import json
import logging
import os
import signal
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType

from seqbench.errors import RunError
from seqbench.launch.job import Ending, Job, train_job
from seqbench.launch.slurm_queue import requeue
from seqbench.runs import atomic, lock
from seqbench.training.interruption import WARNINGS

# While Python imports torch, for some seconds, it has no signal handlers yet, and a warning signal
# kills it. Then this shell code requeues the job.
WARNED_EARLY = (
    f"code=$?; case $code in {'|'.join(str(128 + number) for number in WARNINGS)}) "
    '[ "${{SLURM_RESTART_COUNT:-0}}" -ge {max_requeue} ] || scontrol requeue "$SLURM_JOB_ID";; '
    "esac; exit $code"
)


@dataclass(frozen=True)
class Ticket:
    """The name of a job in SLURM's queue, known before SLURM has assigned an id.

    Attributes:
        name: name of the submission.
        index: index of the job in the submission's array.
        note: file that names the job last submitted for a run.
    """

    name: str
    index: int
    note: Path

    @property
    def folder(self) -> Path:
        """Return the folder of the submission."""
        return self.note.parent / self.name

    @property
    def ending(self) -> Path:
        """Return the file that the job writes its ending to."""
        return self.folder / "endings" / f"{self.index}.json"

    def write(self) -> None:
        """Write the note: this job is now the one that trains the run."""
        content = {"name": self.name, "index": self.index}
        atomic.write(self.note, json.dumps(content).encode())

    def is_current(self) -> bool:
        """Return True if the run's note still names this job."""
        return noted(self.note) == self


def noted(note: Path) -> Ticket | None:
    """Return the job that a note names; `None` if the note is missing or unreadable."""
    with suppress(OSError, ValueError, TypeError):
        return Ticket(**json.loads(note.read_bytes()), note=note)
    return None


def run_on_node(job: Job, ticket: Ticket, threads: int, max_requeue: int) -> None:
    """Train a job on a node; then write its ending, or requeue it if it was interrupted.

    Args:
        job: the job.
        ticket: its name in SLURM's queue.
        threads: CPU threads, unless the job's config sets them.
        max_requeue: number of times that it may be requeued.
    """
    logging.getLogger("submitit").setLevel(logging.WARNING)  # keeps it out of the job's output
    job.take_output()
    # Training sets its own handlers. Before and after it these signals must end the job, in place
    # of submitit's handlers, which requeue by the elapsed time.
    for number in (signal.SIGTERM, *WARNINGS):
        signal.signal(number, exit_at_signal)
    if job.config["threads"] is None:
        job = replace(job, config=job.config | {"threads": threads})
    if begun(job, ticket):
        job = replace(job, retry=False, force=False)  # applied already: resume from the checkpoint
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    ending = Ending("interrupted", "stopped before the first checkpoint")
    if ticket.is_current():
        ending = train_job(job)
        if ending.how == "held" and restarts:
            time.sleep(lock.LEASE)  # the lease may be this job's own, from a node that failed
            ending = train_job(job)
    if ending.how == "interrupted" and ticket.is_current():
        if restarts >= max_requeue:
            reason = f"{ending.reason}, and it went back to the queue {max_requeue} times already"
            ending = replace(ending, reason=f"{reason}: raise launch.max_requeue")
        else:
            try:
                requeue(os.environ["SLURM_JOB_ID"])
                return
            except RunError as error:
                ending = replace(ending, reason=f"{ending.reason}; {error}")
    if not job.output.stat().st_size:
        job.output.unlink()
    atomic.write(ticket.ending, json.dumps(asdict(ending), default=str).encode())


def begun(job: Job, ticket: Ticket) -> bool:
    """Return True if the run has been started since the job was submitted."""
    with suppress(FileNotFoundError):
        history = job.run.history_path
        return history.stat().st_mtime > ticket.note.stat().st_mtime
    return False


def exit_at_signal(number: int, frame: FrameType | None) -> None:
    """Handle a signal by raising `SystemExit`."""
    raise SystemExit


def read_ending(path: Path) -> Ending | None:
    """Read the ending that a job wrote; `None` if it is missing or unreadable."""
    with suppress(OSError, ValueError, TypeError):
        content = json.loads(path.read_bytes())
        log = content.pop("log")
        return Ending(**content, log=Path(log) if log else None)
    return None
