"""A job on a SLURM cluster: what names it, what runs on the node, and how that says it ended."""

import faulthandler
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
from seqbench.interruption import WARNINGS
from seqbench.launch.job import Ending, Job, perform
from seqbench.launch.slurm_queue import requeue
from seqbench.runs import atomic, lock

# A warning kills Python before it listens, while it imports torch for some seconds: then the shell
# around it puts the job back into the queue.
WARNED_EARLY = (
    f"code=$?; case $code in {'|'.join(str(128 + number) for number in WARNINGS)}) "
    '[ "${{SLURM_RESTART_COUNT:-0}}" -ge {most} ] || scontrol requeue "$SLURM_JOB_ID";; '
    "esac; exit $code"
)


@dataclass(frozen=True)
class Ticket:
    """Names a job in SLURM's queue before SLURM has given it a number.

    Attributes:
        name: of the submission.
        index: in its array.
        note: the file that says which job a run was given to.
    """

    name: str
    index: int
    note: Path

    @property
    def folder(self) -> Path:
        """What belongs to the submission."""
        return self.note.parent / self.name

    @property
    def said(self) -> Path:
        """The file in which the job says how it ended."""
        return self.folder / "endings" / f"{self.index}.json"

    def write(self) -> None:
        """Note that the run has been given to this job."""
        content = {"name": self.name, "index": self.index}
        atomic.write(self.note, json.dumps(content).encode())

    def is_wanted(self) -> bool:
        """Whether the run is still given to this job."""
        return noted(self.note) == self


def noted(note: Path) -> Ticket | None:
    """The job that a run was given to last."""
    with suppress(OSError, ValueError, TypeError):
        return Ticket(**json.loads(note.read_bytes()), note=note)
    return None


def do(job: Job, ticket: Ticket, threads: int, most: int) -> None:
    """Do a job: what runs on a node.

    Args:
        job: to do.
        ticket: names it.
        threads: to train with, unless its configuration says how many.
        most: times that it may go back to the queue.
    """
    logging.getLogger("submitit").setLevel(logging.WARNING)  # its news are no output of the job
    output = os.open(job.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    faulthandler.enable()
    # While a run trains it handles them itself. Before and after it must not be deaf, nor may
    # submitit put the job back into the queue, which counts the time that it took.
    for number in (signal.SIGTERM, *WARNINGS):
        signal.signal(number, leave)
    if job.config["threads"] is None:
        job = replace(job, config=job.config | {"threads": threads})
    if begun(job, ticket):
        job = replace(job, retry=False, force=False)  # once; now it goes on from its checkpoint
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    ending = Ending("interrupted", "stopped before there was anything to keep")
    if ticket.is_wanted():
        ending = perform(job)
        if ending.how == "held" and restarts:
            time.sleep(lock.LEASE)  # by this very job, on a node that has failed since
            ending = perform(job)
    if ending.how == "interrupted" and ticket.is_wanted():
        if restarts >= most:
            reason = f"{ending.reason}, and it went back to the queue {most} times already"
            ending = replace(ending, reason=f"{reason}: raise launch.max_requeue")
        else:
            try:
                requeue(os.environ["SLURM_JOB_ID"])
                return
            except RunError as error:
                ending = replace(ending, reason=f"{ending.reason}; {error}")
    if not job.output.stat().st_size:
        job.output.unlink()
    atomic.write(ticket.said, json.dumps(asdict(ending), default=str).encode())


def begun(job: Job, ticket: Ticket) -> bool:
    """Whether the run has been begun since it was submitted."""
    with suppress(FileNotFoundError):
        history = job.run.folder / "history.jsonl"
        return history.stat().st_mtime > ticket.note.stat().st_mtime
    return False


def leave(number: int, frame: FrameType | None) -> None:
    """Handle a signal that asks the job to end."""
    raise SystemExit


def read_ending(path: Path) -> Ending | None:
    """How a job says that it ended."""
    with suppress(OSError, ValueError, TypeError):
        content = json.loads(path.read_bytes())
        log = content.pop("log")
        return Ending(**content, log=Path(log) if log else None)
    return None
