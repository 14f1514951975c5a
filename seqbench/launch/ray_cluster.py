"""Run jobs on a Ray cluster: one Ray task per job, which trains it in a process of its own.

Ray chooses the node and the GPU of a task. There the task starts the job on a `LocalEngine` with
one slot, so that a job that crashes or is killed does not take Ray's worker with it. A job that
loses its node or its Ray worker resumes elsewhere from its checkpoint.
"""

import logging
import os
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from seqbench.errors import ConfigError, first_line, typed_line
from seqbench.launch.job import Ending, Job
from seqbench.launch.local import LocalEngine
from seqbench.machine import available_cores, host
from seqbench.runs.run import Run
from seqbench.training.interruption import signals
from seqbench.user_files import expand_home, make_folders

# Bytes of shared memory of a cluster that seqbench starts; only jobs and endings pass through it.
OBJECT_STORE = 100 * 2**20
# Seconds between two checks by a task: of its job, and of a request to stop.
POLL_SECONDS = 0.2
# Seconds within which a cluster must accept a connection.
CONNECT_TIMEOUT = 10.0
# Seconds to wait for stopped jobs to end before disconnecting from the cluster.
STOP_TIMEOUT = 10.0


@dataclass
class Work:
    """A job submitted to Ray.

    Attributes:
        job: the job.
        last_event: `last_event` of its run when it was submitted.
        cancels: number of stop requests sent.
    """

    job: Job
    last_event: int | None
    cancels: int = 0


class RayEngine:
    """An engine that runs each job as a task on a Ray cluster.

    Args:
        address: address of the cluster; `None`: start one on this machine, which ends with the
            engine.
        cpus: CPUs per job, and its threads unless its config sets them.
        gpus: GPUs per job; below 1: jobs share a GPU; `None`: 1 if the cluster has any, else 0.
        memory: bytes that Ray reserves per job; `None`: none.
        workers: jobs submitted to Ray at a time; `None`: as many as the nodes hold.
        retries: times that a run resumes after its node or Ray worker was lost.

    Raises:
        ConfigError: if Ray is not installed, the cluster is unreachable, or no node can hold a job.
    """

    def __init__(
        self,
        address: str | None,
        cpus: float,
        gpus: float | None,
        memory: int | None,
        workers: int | None,
        retries: int,
    ) -> None:
        for name, value in {"cpus": cpus, "memory": memory, "workers": workers}.items():
            if value is not None and value <= 0:
                raise ConfigError(f"launch.{name} must be positive, not {value}")
        for name, value in {"gpus": gpus, "retries": retries}.items():
            if value is not None and value < 0:
                raise ConfigError(f"launch.{name} must not be negative: {value}")
        self.threads = max(1, int(cpus))
        self.workers = workers
        self.retries = retries
        self.works: dict[Any, Work] = {}
        self.lost: Counter[Path] = Counter()
        self.started: set[Path] = set()
        # In /tmp, because paths of Unix sockets are limited to about 100 bytes.
        self.folder = tempfile.TemporaryDirectory(
            prefix="seqbench-ray-", dir="/tmp", ignore_cleanup_errors=True
        )
        self.ray = connected(address, self.folder.name)
        if gpus is None:
            gpus = 1 if self.ray.cluster_resources().get("GPU") else 0
        self.needs = {"CPU": cpus, "GPU": gpus, "memory": memory or 0}
        if workers is None and not self.places():
            self.close()
            raise ConfigError(
                f"no node of the Ray cluster has room for launch.cpus={cpus}, launch.gpus={gpus} "
                f"and launch.memory={memory}; launch.workers=1 waits for one"
            )
        self.task = self.ray.remote(
            num_cpus=cpus,
            num_gpus=gpus,
            memory=memory,
            max_retries=0,  # Ray cannot know whether the run has begun
            max_calls=0,  # Ray may reuse its worker: the job's own process holds the GPU
        )(train)

    def places(self) -> int:
        """Return the number of jobs that the live nodes hold at a time."""
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        needs = [(name, need) for name, need in self.needs.items() if need]
        # 1e-6 absorbs rounding: gpus=0.1 must give ten jobs per GPU.
        return sum(min(int(n.get(k, 0) / need + 1e-6) for k, need in needs) for n in nodes)

    def room(self) -> int:
        # At least 1: a cluster that has lost its nodes may get new ones.
        return (self.workers or max(1, self.places())) - len(self.works)

    def start(self, jobs: Sequence[Job]) -> None:
        # Nodes do not inherit the launcher's environment.
        settings = {k: v for k, v in os.environ.items() if k.startswith("SEQBENCH_")}
        for job in jobs:
            make_folders(job.output.parent)
            given = with_absolute_paths(job)
            if job.run.folder in self.started:
                given = replace(given, retry=False, force=False)  # applied already: now resume
            gpu = bool(self.needs["GPU"])
            ref = self.task.options(name=job.label).remote(
                given, self.threads, gpu, str(Path.cwd()), settings
            )
            self.works[ref] = Work(job, last_event(job))

    def working(self) -> list[Job]:
        return [work.job for work in self.works.values()]

    def ended(self, seconds: float) -> Iterator[tuple[Job, Ending]]:
        if not self.works:
            time.sleep(seconds)
            return
        self.ray.wait(list(self.works), timeout=seconds)
        done, _ = self.ray.wait(list(self.works), num_returns=len(self.works), timeout=0)
        for ref in done:
            work = self.works.pop(ref)
            yield work.job, self.ending_of(ref, work)

    def ending_of(self, ref: Any, work: Work) -> Ending:
        """Return the ending that the task returned, or else one derived from Ray's error."""
        errors, folder = self.ray.exceptions, work.job.run.folder
        try:
            ending: Ending = self.ray.get(ref)
            return ending
        except errors.TaskCancelledError:
            return Ending("interrupted", "stopped before the first checkpoint")
        except errors.RayTaskError as error:  # the job could not start
            cause = error.cause or error
            return Ending("failed", f"on its node: {typed_line(cause)}")
        except errors.RayError as error:
            self.lost[folder] += 1
            if last_event(work.job) != work.last_event:
                self.started.add(folder)
            reason = f"Ray lost the job ({type(error).__name__})"
            if self.lost[folder] > self.retries:
                return Ending("killed", f"{reason} for the {self.lost[folder]}th time")
            # The job's process may still be writing a checkpoint. "held" makes the sweep wait for
            # the run's lock and then submit it again.
            return Ending("held", reason)

    def stop(self, jobs: Sequence[Job], now: bool) -> None:
        for ref, work in self.works.items():
            if work.job in jobs:
                for _ in range(work.cancels, 2 if now else 1):  # the second stops it at once
                    self.ray.cancel(ref)
                    work.cancels += 1

    def close(self) -> None:
        if self.works:
            self.stop(self.working(), now=True)
            self.ray.wait(list(self.works), num_returns=len(self.works), timeout=STOP_TIMEOUT)
        self.ray.shutdown()
        self.folder.cleanup()


def connected(address: str | None, folder: str) -> Any:
    """Connect to a Ray cluster and return the `ray` module.

    Args:
        address: address of the cluster; `None`: start one on this machine.
        folder: temporary folder of a cluster started here.

    Raises:
        ConfigError: if Ray is not installed, or the cluster is unreachable.
    """
    # Ray reads these when it is imported. It must send no usage statistics, and must not print
    # node output into the sweep's table; the nodes' logs keep it.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "^")
    if address and (
        {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys()
        or expand_home("~/.ray/auth_token").exists()
    ):
        # Without this, Ray cannot join a cluster that requires the token; other clusters ignore it.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray
    except ModuleNotFoundError:
        raise ConfigError("launch=ray needs Ray: pip install 'seqbench[ray]'") from None
    if address and ":" in address:
        # Ray itself would retry a closed port for minutes.
        name, _, port = address.removeprefix("ray://").rpartition(":")
        try:
            socket.create_connection((name, int(port)), timeout=CONNECT_TIMEOUT).close()
        except (OSError, ValueError) as error:
            raise ConfigError(f"launch.address={address}: connection failed: {error}") from error
    own: dict[str, Any] = {
        "num_cpus": available_cores(),
        "include_dashboard": False,
        "object_store_memory": OBJECT_STORE,
        "_temp_dir": folder,
    }
    try:
        ray.init(
            address or "local",
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            **({} if address else own),
        )
    except Exception as error:  # Ray raises many types here
        where = f"launch.address={address}" if address else "launch=ray"
        raise ConfigError(f"{where}: Ray says: {first_line(error)}") from error
    return ray


def with_absolute_paths(job: Job) -> Job:
    """Return a job with absolute paths, for another machine."""
    config = job.config | {"output_dir": str(Path(job.config["output_dir"]).absolute())}
    return replace(job, config=config, run=Run.of(config), output=job.output.absolute())


def last_event(job: Job) -> int | None:
    """Return the time in ns of the run's last start, interruption or resume; `None` if none."""
    try:
        return job.run.history_path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def train(job: Job, threads: int, gpu: bool, folder: str, settings: dict[str, str]) -> Ending:
    """Train a job on a node: the function of a Ray task.

    Args:
        job: the job.
        threads: CPU threads, unless the job's config sets them.
        gpu: True if Ray assigned a GPU; otherwise the GPUs of other jobs are hidden.
        folder: working directory of the sweep, where user-defined models may be.
        settings: `SEQBENCH_*` variables of the launcher.

    Returns:
        The job's ending.
    """
    with suppress(OSError):
        os.chdir(folder)
    if not job.output.parent.is_dir():  # the launcher made it
        return Ending("failed", f"node {host()} does not see {job.output.parent}: share output_dir")
    os.environ.update(settings)
    if not gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    # Without __file__, multiprocessing does not import Ray's worker script again in the job's
    # process, which would take longer than starting it.
    vars(sys.modules["__main__"]).pop("__file__", None)
    stopping = False
    # ray.cancel sends SIGINT to this task; Ray may have been started with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with signals() as received:
        engine = LocalEngine(workers=1, threads=threads, jobs_per_device=1)
        try:
            engine.start([job])
            while True:
                for _, ending in engine.ended(POLL_SECONDS):
                    return ending
                if received() and not stopping:
                    stopping = True
                    engine.stop(engine.working(), now=False)
        finally:
            engine.close()
