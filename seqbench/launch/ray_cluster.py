"""Jobs on a Ray cluster: a task of Ray's for each, which has a process of its own train it.

Ray says where a job is done, and which GPU is its. There the task is a launcher on a small scale: a
`LocalEngine` with one place. So a job that crashes or is killed takes nothing of Ray's with it, and
a job that loses its node, or Ray's worker there, goes on elsewhere from its checkpoint.
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

from seqbench.errors import ConfigError
from seqbench.interruption import signals
from seqbench.launch.job import Ending, Job
from seqbench.launch.local import LocalEngine
from seqbench.machine import available_cores, host
from seqbench.runs.run import Run
from seqbench.signatures import first_line

# Bytes of shared memory of a cluster of ours; nothing of size passes through it.
OBJECT_STORE = 100 * 2**20
# Seconds between two looks of a task: at its job, and at whether it is to stop.
LOOK = 0.2
# Seconds in which a cluster must answer.
PATIENCE = 10.0
# Seconds that jobs get to end in, once they were told to, before the cluster is left.
FAREWELL = 10.0


@dataclass
class Work:
    """A job that Ray was given.

    Attributes:
        job: the job.
        before: when something last happened to its run before that.
        told: times that it was told to stop.
    """

    job: Job
    before: int | None
    told: int = 0


class RayEngine:
    """Tasks on a Ray cluster.

    Args:
        address: of the cluster; `None`: one on this machine, which ends with this engine.
        cpus: of a job, which trains with as many threads unless it says how many.
        gpus: of a job; less than one: it shares a GPU; `None`: one, if the cluster has any.
        memory: bytes of a job; `None`: Ray does not count them.
        workers: jobs that Ray is given at a time; `None`: as many as the nodes hold.
        retries: times that a run goes on after its node or its Ray worker was lost.

    Raises:
        ConfigError: Ray is not installed, the cluster cannot be had, or none of its nodes can
            take a job.
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
        self.begun: set[Path] = set()
        # In /tmp, because the names of sockets must be short.
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
            max_retries=0,  # Ray cannot know whether the run was begun
            max_calls=0,  # Ray's worker can be used again: it is the job's process that has the GPU
        )(train)

    def places(self) -> int:
        """Jobs that the nodes hold at a time, as they are now."""
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        needs = [(name, need) for name, need in self.needs.items() if need]
        # Ten tenths of a GPU are one.
        return sum(min(int(n.get(k, 0) / need + 1e-6) for k, need in needs) for n in nodes)

    def room(self) -> int:
        # At least one: a cluster that has lost its nodes may get others.
        return (self.workers or max(1, self.places())) - len(self.works)

    def start(self, jobs: Sequence[Job]) -> None:
        # The nodes have an environment of their own, which need not be the launcher's.
        settings = {k: v for k, v in os.environ.items() if k.startswith("SEQBENCH_")}
        for job in jobs:
            job.output.parent.mkdir(parents=True, exist_ok=True)
            given = elsewhere(job)
            if job.run.folder in self.begun:
                given = replace(given, retry=False, force=False)  # once; now it goes on
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
        """How a job ended: as its task said, or else as Ray says."""
        errors, folder = self.ray.exceptions, work.job.run.folder
        try:
            ending: Ending = self.ray.get(ref)
            return ending
        except errors.TaskCancelledError:
            return Ending("interrupted", "stopped before there was anything to keep")
        except errors.RayTaskError as error:  # it could not even begin
            cause = error.cause or error
            return Ending("failed", f"on its node: {type(cause).__name__}: {first_line(cause)}")
        except errors.RayError as error:
            self.lost[folder] += 1
            if last_event(work.job) != work.before:
                self.begun.add(folder)
            reason = f"Ray lost it ({type(error).__name__})"
            if self.lost[folder] > self.retries:
                return Ending("killed", f"{reason} for the {self.lost[folder]}th time")
            # Its process may outlive that, to write a checkpoint: the run is asked for again, and
            # given to another node once it is free.
            return Ending("held", reason)

    def stop(self, jobs: Sequence[Job], now: bool) -> None:
        for ref, work in self.works.items():
            if work.job in jobs:
                for _ in range(work.told, 2 if now else 1):  # a task takes it as it takes Ctrl-C
                    self.ray.cancel(ref)
                    work.told += 1

    def close(self) -> None:
        if self.works:
            self.stop(self.working(), now=True)
            self.ray.wait(list(self.works), num_returns=len(self.works), timeout=FAREWELL)
        self.ray.shutdown()
        self.folder.cleanup()


def connected(address: str | None, folder: str) -> Any:
    """Ray, connected to a cluster.

    Args:
        address: of it; `None`: a new one on this machine.
        folder: takes what that one writes.

    Raises:
        ConfigError: Ray is not installed, or the cluster cannot be had.
    """
    # Ray reads these when it is imported. It must neither send anything home nor print what its
    # nodes have to say into the sweep's table; their logs keep it.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "^")
    token = Path.home() / ".ray" / "auth_token"
    if address and (
        token.exists() or {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys()
    ):
        # It must be told so, or cannot join a cluster that asks for the token; others do not mind.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray
    except ModuleNotFoundError:
        raise ConfigError("launch=ray needs Ray: pip install 'seqbench[ray]'") from None
    if address and ":" in address:
        # Ray itself would knock at a closed door for minutes.
        name, _, port = address.removeprefix("ray://").rpartition(":")
        try:
            socket.create_connection((name, int(port)), timeout=PATIENCE).close()
        except (OSError, ValueError) as error:
            raise ConfigError(f"launch.address={address}: nobody answers there: {error}") from error
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
    except Exception as error:  # of every kind there is
        where = f"launch.address={address}" if address else "launch=ray"
        raise ConfigError(f"{where}: Ray says: {first_line(error)}") from error
    return ray


def elsewhere(job: Job) -> Job:
    """A job as another machine needs it: with whole paths."""
    config = job.config | {"output_dir": str(Path(job.config["output_dir"]).absolute())}
    return replace(job, config=config, run=Run.of(config), output=job.output.absolute())


def last_event(job: Job) -> int | None:
    """When something last happened to a run."""
    try:
        return (job.run.folder / "history.jsonl").stat().st_mtime_ns
    except FileNotFoundError:
        return None


def train(job: Job, threads: int, gpu: bool, folder: str, settings: dict[str, str]) -> Ending:
    """What a task of Ray's does on its node.

    Args:
        job: to do.
        threads: to train with, unless the job says how many.
        gpu: whether Ray gave it one; else it must not see those of other jobs.
        folder: that the sweep was started in; a model of the user's may stand there.
        settings: of the sweep's environment.
    """
    with suppress(OSError):
        os.chdir(folder)
    if not job.output.parent.is_dir():  # the launcher made it
        return Ending("failed", f"node {host()} does not see {job.output.parent}: share output_dir")
    os.environ.update(settings)
    if not gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    # Else each process would import Ray's worker once more, which takes longer than to start it.
    vars(sys.modules["__main__"]).pop("__file__", None)
    told = False
    # ray.cancel interrupts this task by SIGINT, also where Ray was started with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with signals() as asked_to_stop:
        engine = LocalEngine(workers=1, threads=threads, jobs_per_device=1)
        try:
            engine.start([job])
            while True:
                for _, ending in engine.ended(LOOK):
                    return ending
                if asked_to_stop() and not told:
                    told = True
                    engine.stop(engine.working(), now=False)
        finally:
            engine.close()
