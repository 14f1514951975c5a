"""Run jobs on this machine, each in a process forked from a server that has imported torch.

Importing torch takes seconds. A fork server (Python's multiprocessing) imports it once, trains
nothing itself, and forks a process per job in milliseconds. That process starts as fast as a reused
one and as clean as a new one, so it computes the same bits. A crash or a leak ends with its job.
"""

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
from seqbench.launch.job import Ending, Job, train_job
from seqbench.machine import available_cores, cuda_devices
from seqbench.user_files import make_folders

# Imported by the fork server: all that a training needs, and the main module, which multiprocessing
# would otherwise import again in each process for unpickling.
WARM = [
    "seqbench.launch.fork_server",
    *("seqbench.experiment", "seqbench.launch.local", "seqbench.cli.main", "torch._dynamo"),
]
# The exit code that multiprocessing reports for a process whose fork server has died.
FORK_SERVER_DIED = 255
# Seconds for a job to write its checkpoint after the launcher has died.
SECONDS_TO_CHECKPOINT = 30.0


@dataclass
class Work:
    """A running job.

    Attributes:
        job: the job.
        environment: environment variables that bind it to a GPU.
        process: its process.
        receiver: pipe through which the process sends the job's ending.
    """

    job: Job
    environment: dict[str, str]
    process: BaseProcess
    receiver: Connection


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
        # The environments of the jobs that may be started.
        self.free = [environments[i % len(environments)] for i in range(count)]
        self.works: list[Work] = []
        # Otherwise torch may initialize CUDA in the fork server; its children then cannot use CUDA.
        os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(WARM)

    def room(self) -> int:
        return len(self.free)

    def start(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            environment = self.free.pop(0)
            make_folders(job.output.parent)
            receiver, sender = self.context.Pipe(duplex=False)
            config = job.config | {"threads": job.config["threads"] or self.threads}
            process = self.context.Process(
                target=child, args=(replace(job, config=config), sender, os.environ | environment)
            )
            process.start()
            sender.close()
            self.works.append(Work(job, environment, process, receiver))

    def working(self) -> list[Job]:
        return [work.job for work in self.works]

    def ended(self, seconds: float) -> Iterator[tuple[Job, Ending]]:
        ready = wait([work.process.sentinel for work in self.works], seconds)  # sleeps if idle
        for work in [work for work in self.works if work.process.sentinel in ready]:
            self.works.remove(work)
            self.free.append(work.environment)
            yield work.job, ending_of(work)

    def stop(self, jobs: Sequence[Job], now: bool) -> None:
        for work in self.works:
            if work.job in jobs:
                work.process.kill() if now else work.process.terminate()

    def close(self) -> None:
        for work in self.works:
            work.process.kill()
            work.process.join()


def ending_of(work: Work) -> Ending:
    """Return the ending that the process sent, or else one derived from its exit code.

    This closes the process and its pipe, and deletes the job's output file if it is empty.
    """
    work.process.join()
    code, output = work.process.exitcode or 0, work.job.output
    ending: Ending | None = None
    with suppress(EOFError, OSError):
        if work.receiver.poll():
            ending = work.receiver.recv()
    work.receiver.close()
    work.process.close()
    with suppress(OSError):
        if not output.stat().st_size:
            output.unlink()
    if ending is not None:
        return ending
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


def child(job: Job, sender: Connection, environment: dict[str, str]) -> None:
    """Train a job: the main function of its process.

    Args:
        job: the job.
        sender: pipe to send the ending through.
        environment: the launcher's current variables and the slot's; the fork server still has
            those of its own start.
    """
    os.environ.clear()
    os.environ.update(environment)
    # Ctrl-C reaches every process of a terminal; only the launcher may stop the job for it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    job.take_output()
    threading.Thread(target=die_with_parent, daemon=True).start()
    ending = train_job(job)
    sys.stderr.flush()
    with suppress(BrokenPipeError):
        sender.send(ending)


def die_with_parent() -> None:
    """Wait until the launcher is gone, then stop this process with a checkpoint.

    Exit after `SECONDS_TO_CHECKPOINT` seconds in any case.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SECONDS_TO_CHECKPOINT)
    os._exit(1)
