"""Run jobs on this machine, each in a process forked from a server that has imported torch.

Importing torch takes seconds. A fork server (Python's multiprocessing) imports it once, trains
nothing itself, and forks a process per job in milliseconds. That process starts as fast as a reused
one and as clean as a new one, so it computes the same bits. A crash or a leak ends with its job.
"""

import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from seqbench.errors import ConfigError
from seqbench.launch.job import Ending, Job, perform
from seqbench.machine import available_cores, cuda_devices

# Imported by the fork server: all that a training needs, and the main module, which multiprocessing
# would otherwise import again in each process for unpickling.
WARM = [
    "seqbench.launch.fork_server",
    *("seqbench.experiment", "seqbench.launch.local", "seqbench.cli.main", "torch._dynamo"),
]
# The exit code that multiprocessing reports for a process whose fork server has died.
FORK_SERVER_DIED = 255
# Seconds for a job to write its checkpoint after the launcher has died.
LAST_WORDS = 30.0


@dataclass
class Work:
    """A job, its process, and the pipe through which that process sends its ending."""

    job: Job
    process: BaseProcess
    channel: Connection


@dataclass
class Slot:
    """A place for one job at a time.

    Attributes:
        environment: environment variables that bind a job to the slot's GPU.
        work: the current job; `None` if the slot is free.
    """

    environment: dict[str, str]
    work: Work | None = None


class LocalEngine:
    """An engine that runs each job in a process on this machine.

    Args:
        workers: jobs at a time; `None`: GPUs * `jobs_per_device`, or cores / `threads` without GPU.
        threads: CPU threads of a job whose config sets none. For models this small, a second
            thread gains less than a second job.
        jobs_per_device: jobs that share a GPU.

    Raises:
        ConfigError: if an argument is not positive.
    """

    def __init__(self, workers: int | None, threads: int, jobs_per_device: int) -> None:
        for name, value in {
            "workers": workers,
            "threads": threads,
            "jobs_per_device": jobs_per_device,
        }.items():
            if value is not None and value < 1:
                raise ConfigError(f"launch.{name} must be positive, not {value}")
        self.threads = threads
        environments: list[dict[str, str]] = [
            {"CUDA_VISIBLE_DEVICES": device} for device in cuda_devices()
        ] * jobs_per_device
        if not environments:
            environments = [{}] * max(1, available_cores() // threads)
        count = workers or len(environments)
        self.slots = [Slot(environments[i % len(environments)]) for i in range(count)]
        # Otherwise torch may initialize CUDA in the fork server; its children then cannot use CUDA.
        os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(WARM)

    def room(self) -> int:
        return sum(slot.work is None for slot in self.slots)

    def start(self, jobs: Sequence[Job]) -> None:
        free = (slot for slot in self.slots if slot.work is None)
        for job, slot in zip(jobs, free, strict=False):
            if job.config["threads"] is None:
                job = replace(job, config=job.config | {"threads": self.threads})
            slot.work = self.begin(job, dict(os.environ) | slot.environment)

    def begin(self, job: Job, environment: dict[str, str]) -> Work:
        """Start a process that trains a job."""
        job.output.parent.mkdir(parents=True, exist_ok=True)
        channel, theirs = self.context.Pipe(duplex=False)
        process = self.context.Process(target=child, args=(job, theirs, environment))
        process.start()
        theirs.close()
        return Work(job, process, channel)

    def working(self) -> list[Job]:
        return [slot.work.job for slot in self.slots if slot.work is not None]

    def ended(self, seconds: float) -> Iterator[tuple[Job, Ending]]:
        works = [slot.work for slot in self.slots if slot.work is not None]
        if not works:
            time.sleep(seconds)
        over = set(wait([work.process.sentinel for work in works], seconds))
        for slot in self.slots:
            if slot.work is not None and slot.work.process.sentinel in over:
                work, slot.work = slot.work, None
                yield work.job, ending_of(work)

    def stop(self, jobs: Sequence[Job], now: bool) -> None:
        for slot in self.slots:
            if slot.work is not None and slot.work.job in jobs:
                process = slot.work.process
                process.kill() if now else process.terminate()

    def close(self) -> None:
        for slot in self.slots:
            if slot.work is not None:
                slot.work.process.kill()
                slot.work.process.join()


def ending_of(work: Work) -> Ending:
    """Return the ending that the process sent, or else one derived from its exit code.

    This closes the process and its pipe, and deletes the job's output file if it is empty.
    """
    work.process.join()
    code, output = work.process.exitcode or 0, work.job.output
    said = None
    with suppress(EOFError, OSError):
        if work.channel.poll():
            said = work.channel.recv()
    work.channel.close()
    work.process.close()
    with suppress(OSError):
        if not output.stat().st_size:
            output.unlink()
    if said is not None:
        return said
    if code == -signal.SIGTERM:
        return Ending("interrupted", "stopped before the first checkpoint")
    log = next((path for path in (output, work.job.run.log_path) if path.exists()), None)
    if code == FORK_SERVER_DIED:
        return Ending("killed", "the process that starts the jobs was killed", log)
    if code == -signal.SIGKILL:
        return Ending("killed", "killed by SIGKILL, as happens when memory runs out", log)
    if code < 0:
        return Ending("killed", f"killed by {signal.Signals(-code).name}", log)
    return Ending("killed", f"its process ended with code {code}", log)


def child(job: Job, channel: Connection, environment: dict[str, str]) -> None:
    """Train a job: the main function of its process.

    Args:
        job: the job.
        channel: pipe to send the ending through.
        environment: the launcher's current variables and the slot's; the fork server still has
            those of its own start.
    """
    os.environ.clear()
    os.environ.update(environment)
    # Ctrl-C reaches every process of a terminal; only the launcher may stop the job for it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    output = os.open(job.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    faulthandler.enable()
    threading.Thread(target=die_with_parent, daemon=True).start()
    ending = perform(job)
    sys.stderr.flush()
    with suppress(BrokenPipeError):
        channel.send(ending)


def die_with_parent() -> None:
    """Wait until the launcher is gone, then stop this process with a checkpoint.

    Exit after `LAST_WORDS` seconds in any case.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(LAST_WORDS)
    os._exit(1)
