"""Run jobs on a SLURM cluster: submitit submits them as job arrays.

Jobs outlive the launcher. Before it submits a job for a run, the launcher writes a note that names
the job. A later sweep with the same run reads the note and finds the job, waiting or running:

outputs/sweeps/slurm/
    <run_id>.json       note: the run's last submission by name, and the job's index in it
    seqbench-<hex>/     a submission: submitit's files and logs
        endings/        the ending that each job wrote

A job that its run's note no longer names is stopped, or ends when it reads the note. A job that
SLURM warns, of its time limit or of preemption, writes a checkpoint and is requeued. SLURM itself
requeues jobs whose node has failed.
"""

import contextlib
import importlib.util
import io
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from seqbench.errors import ConfigError, RunError, SeqbenchError
from seqbench.launch.job import Ending, Job, of_record
from seqbench.launch.slurm_job import WARNED_EARLY, Ticket, noted, read_ending, run_on_node
from seqbench.launch.slurm_queue import OVER, QueueEntry, in_queue, scancel
from seqbench.user_files import make_folders

# What the user can do about some final states of a job.
ADVICE = {"OUT_OF_MEMORY": ": raise launch.memory", "TIMEOUT": ": raise launch.warning"}
# Seconds between two queries to SLURM while jobs are being stopped.
STOP_POLL = 2.0


@dataclass
class Work:
    """The launcher's view of a submitted job.

    Attributes:
        ticket: the job's name in SLURM's queue.
        since: time of submission, by the file server's clock.
        entry: the job's last known entry in the queue.
        missed: consecutive queries in which SLURM listed the job as ended or not at all.
        stopping: how the job must stop, if it must.
        stopped: how SLURM has been asked to stop it.
    """

    ticket: Ticket
    since: float
    entry: QueueEntry | None = None
    missed: int = 0
    stopping: Literal["", "checkpoint", "now"] = ""
    stopped: Literal["", "checkpoint", "now"] = ""


class SlurmEngine:
    """An engine that submits jobs to a SLURM cluster.

    Args:
        partition: partition; `None`, here and below: the cluster's default.
        account: account to charge.
        qos: quality of service.
        gpus: GPUs per job.
        cpus: CPUs per job, and its threads unless its config sets them.
        memory: memory per job in SLURM's notation, as in `4G`.
        minutes: time limit of a job.
        warning: seconds before the time limit at which a job writes a checkpoint and is requeued.
        max_requeue: number of times that a job may be requeued.
        queue: jobs in the queue at a time, waiting or running.
        array_parallelism: jobs of an array that run at a time.
        setup: shell lines to run before each job.
        sbatch: other options of sbatch, by long name.
        poll: seconds between two queries to SLURM.

    Raises:
        ConfigError: if submitit or SLURM is not installed, a number is not positive, or `warning`
            is not below `minutes`.
    """

    def __init__(
        self,
        partition: str | None,
        account: str | None,
        qos: str | None,
        gpus: int | None,
        cpus: int,
        memory: str | int | None,
        minutes: int,
        warning: int,
        max_requeue: int,
        queue: int,
        array_parallelism: int,
        setup: list[str],
        sbatch: dict[str, Any],
        poll: float,
    ) -> None:
        numbers = {"cpus": cpus, "minutes": minutes, "warning": warning, "poll": poll}
        numbers |= {"queue": queue, "array_parallelism": array_parallelism, "gpus": gpus or 1}
        for name, value in numbers.items():
            if value <= 0:
                raise ConfigError(f"launch.{name} must be positive, not {value}")
        if warning >= 60 * minutes:
            raise ConfigError(
                f"launch.warning={warning} seconds leave nothing of launch.minutes={minutes}"
            )
        for command in ("sbatch", "srun", "squeue", "scancel"):
            if shutil.which(command) is None:
                raise ConfigError(f"launch=slurm needs a SLURM cluster: there is no {command} here")
        if importlib.util.find_spec("submitit") is None:
            raise ConfigError("launch=slurm needs submitit: pip install 'seqbench[slurm]'")
        self.cpus = cpus
        self.max_requeue = max_requeue
        self.queue = queue
        self.poll = poll
        self.parameters = {
            "partition": partition,
            "account": account,
            "qos": qos,
            "gpus_per_node": gpus or None,
            "cpus_per_task": cpus,
            "mem": memory,
            "time": minutes,
            "array_parallelism": array_parallelism,
            "setup": setup,
            # Since SLURM 22.05 a step no longer inherits this from its job.
            "srun_args": [f"--cpus-per-task={cpus}"],
            "signal_delay_s": warning,
            "teardown": [WARNED_EARLY.format(max_requeue=max_requeue)],
            "additional_parameters": {"requeue": True} | sbatch,
        }
        self.works: dict[Job, Work] = {}
        self.last_query = time.monotonic()

    def room(self) -> int:
        return self.queue - len(self.works)

    def start(self, jobs: Sequence[Job]) -> None:
        for home in sorted({home_of(job) for job in jobs}):
            make_folders(home)
            with FileLock(home / ".lock"):
                self.take([job for job in jobs if home_of(job) == home], home)

    def take(self, jobs: Sequence[Job], home: Path) -> None:
        """Adopt jobs that an earlier launcher left in the queue, and submit the others."""
        known = {job: noted(home / f"{job.run.run_id}.json") for job in jobs}
        queue = in_queue({ticket.name for ticket in known.values() if ticket})
        new = []
        for job, ticket in known.items():
            entry = queue.get((ticket.name, ticket.index)) if ticket else None
            if ticket and entry and entry.state not in OVER:
                self.works[job] = Work(ticket, ticket.note.stat().st_mtime, entry)
            else:
                new.append(job)
        if new:
            self.submit(new, home)

    def submit(self, jobs: Sequence[Job], home: Path) -> None:
        """Submit jobs to SLURM as one array.

        Raises:
            ConfigError: if sbatch rejects them.
        """
        from submitit import SlurmExecutor

        name = f"seqbench-{uuid.uuid4().hex[:8]}"
        tickets = [Ticket(name, i, home / f"{job.run.run_id}.json") for i, job in enumerate(jobs)]
        # Write the notes before submitting: after a crash in between, no job is submitted twice.
        for job, ticket in zip(jobs, tickets, strict=True):
            make_folders(job.output.parent)
            ticket.write()
        tickets[0].ending.parent.mkdir(parents=True)
        executor = SlurmExecutor(home / name)
        given = {key: value for key, value in self.parameters.items() if value is not None}
        executor.update_parameters(job_name=name, **given)
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # submitit also prints its errors
                on_node = partial(run_on_node, threads=self.cpus, max_requeue=self.max_requeue)
                executor.map_array(on_node, jobs, tickets)
        except RuntimeError as error:
            reason = str(error).strip().split("\n")[-1].removeprefix("sbatch: error: ")
            raise ConfigError(f"sbatch refuses the jobs: {reason}") from error
        for job, ticket in zip(jobs, tickets, strict=True):
            self.works[job] = Work(ticket, ticket.note.stat().st_mtime)

    def working(self) -> list[Job]:
        return list(self.works)

    def ended(self, seconds: float) -> Iterator[tuple[Job, Ending]]:
        time.sleep(seconds)
        stopping = any(work.stopping for work in self.works.values())
        interval = min(self.poll, STOP_POLL) if stopping else self.poll
        if time.monotonic() - self.last_query >= interval:
            with suppress(RunError):  # the next query is made later
                self.query()
            self.cancel()
        # List each folder once: shared file systems are slow.
        folders = {work.ticket.ending.parent for work in self.works.values()}
        there = {path for folder in folders if folder.exists() for path in folder.iterdir()}
        for job, work in list(self.works.items()):
            ending = read_ending(work.ticket.ending) if work.ticket.ending in there else None
            # A single miss can be a node that has just failed, or a file system that lags.
            if ending is None and work.missed > (0 if work.stopping else 1):
                ending = lost(job, work)
            if ending is not None:
                del self.works[job]
                yield job, ending

    def query(self) -> None:
        """Query SLURM for all submitted jobs, and update what is known of each.

        Raises:
            RunError: if SLURM does not answer.
        """
        self.last_query = time.monotonic()
        queue = in_queue({work.ticket.name for work in self.works.values()})
        for work in self.works.values():
            entry = queue.get((work.ticket.name, work.ticket.index))
            work.entry = entry or work.entry
            work.missed = work.missed + 1 if entry is None or entry.state in OVER else 0

    def stop(self, jobs: Sequence[Job], now: bool) -> None:
        works = [self.works[job] for job in jobs if job in self.works]
        for work in works:
            work.stopping = "now" if now else work.stopping or "checkpoint"
            # A job that SLURM does not stop ends when it finds that its note is gone.
            work.ticket.note.unlink(missing_ok=True)
        if any(work.stopping != work.stopped for work in works):
            with suppress(RunError):  # the last known ids may be enough
                self.query()
            self.cancel()
            self.last_query = float("-inf")

    def cancel(self) -> None:
        """Cancel the jobs that must stop; if SLURM does not answer, `ended` tries again."""
        due = [work for work in self.works.values() if work.stopping != work.stopped and work.entry]
        at_once = [work.entry.id for work in due if work.entry and work.stopping == "now"]
        later = [work.entry.id for work in due if work.entry and work.stopping == "checkpoint"]
        sent = [
            scancel(at_once),
            # Pending first: a job that starts between the two calls then gets the signal.
            scancel(later, "--state=PENDING"),
            scancel(later, "--state=RUNNING", "--signal=TERM"),
        ]
        for work in due if all(sent) else ():
            work.stopped = work.stopping

    def close(self) -> None:
        """Do nothing: jobs stay in the cluster's queue."""


def home_of(job: Job) -> Path:
    """Return the folder of notes and submissions, shared by all sweeps because they may overlap."""
    return job.output.absolute().parent.parent / "slurm"


def lost(job: Job, work: Work) -> Ending:
    """Return the ending of a job that wrote none, from its run's record or its state in SLURM."""
    try:
        # An older record belongs to an attempt that this job was to repeat.
        if job.run.record_path.stat().st_mtime > work.since and job.run.record is not None:
            return of_record(job.run.record, job.run)
    except FileNotFoundError:
        pass
    except SeqbenchError as error:
        return Ending("failed", str(error))
    if work.stopping:
        return Ending("interrupted", "stopped before the first checkpoint")
    logs = [job.output]
    reason = "gone from SLURM's queue"
    if work.entry is not None:
        logs.append(work.ticket.folder / f"{work.entry.id}_0_log.err")
        state = work.entry.state
        over = f"SLURM says {state}{ADVICE.get(state, '')}"
        reason = over if state in OVER else f"{reason}, where it was {state}"
    log = next((path for path in logs if path.exists() and path.stat().st_size), None)
    return Ending("killed", reason, log)
