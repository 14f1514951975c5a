"""Run the jobs of a sweep on an engine, each run once, even if jobs or the sweep itself crash.

All state is on disk, in the runs' folders. The same sweep, started again after an interruption,
trains the missing runs. Overlapping sweeps share the work, and a larger sweep adds to a smaller.
"""

import hashlib
import json
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from seqbench.config.compose import Composer
from seqbench.errors import SeqbenchError
from seqbench.launch.configs import compose_all
from seqbench.launch.engine import Engine
from seqbench.launch.job import Ending, Job, of_record
from seqbench.launch.progress import Progress
from seqbench.machine import host
from seqbench.runs import lock
from seqbench.runs.run import Run
from seqbench.training.interruption import signals
from seqbench.user_files import make_folders, share

# Seconds between two reads of the folders of running jobs.
LOOK = 1.0
# Endings that the user has to look into.
FAILURES = ("failed", "diverged", "killed")
TIME_LIMIT = "time limit reached"


@dataclass(frozen=True)
class Policy:
    """The options of a sweep that the user sets, besides its jobs.

    Attributes:
        retry: train failed and diverged runs again.
        force: train all runs again.
        fail_fast: after the first failure start no more jobs, and stop the running ones.
        seconds: time limit of the sweep: then start no more jobs, and stop the running ones.
        dry_run: plan the jobs, and run none.
        wait: wait until all jobs have ended, instead of leaving them to the cluster.
    """

    retry: bool = False
    force: bool = False
    fail_fast: bool = False
    seconds: float | None = None
    dry_run: bool = False
    wait: bool = True


class View:
    """An observer of a sweep whose methods do nothing; subclasses override what they need.

    Attributes:
        split: split of the scores to show; a search sets `valid`, because it does not use test.
    """

    split = "test"

    def planned(self, jobs: Sequence[Job]) -> None:
        """Receive the jobs of the sweep, including those whose runs are already over."""

    def ended(self, job: Job, ending: Ending, found: bool) -> None:
        """Receive a job's ending; `found`: the run was over before this sweep reached it."""

    def look(self, sweep: "Sweep") -> None:
        """Refresh what is shown; called several times a second."""


@dataclass
class Sweep:
    """A sweep's jobs and their states.

    Hydra passes it from the command to the launcher as its task function.

    Attributes:
        command: overrides as typed.
        composer: composes configs from overrides.
        policy: the user's options.
        view: observer of the sweep.
        prune: returns True to stop a running job early; set by a search.
        jobs: run folder -> job, in the order requested.
        endings: run folder -> ending of a job that has ended.
        running: run folder -> progress of a running job.
        waiting: jobs to start.
        held: jobs whose runs other processes are training.
        stopped: reason why the sweep stopped early; `None` if it did not.
        pruned: folders of the runs that `prune` has stopped.
        summary: result of a search as text.
        error: of one of several searches, to be raised once the results of the others are shown.
        engine: function that builds the engine; `None` before the launcher is called.
    """

    command: Sequence[str]
    composer: Composer
    policy: Policy = field(default_factory=Policy)
    view: View = field(default_factory=View)
    prune: Callable[[Job, Progress], bool] | None = None
    jobs: dict[Path, Job] = field(default_factory=dict)
    endings: dict[Path, Ending] = field(default_factory=dict)
    running: dict[Path, Progress] = field(default_factory=dict)
    waiting: deque[Job] = field(default_factory=deque)
    held: deque[Job] = field(default_factory=deque)
    stopped: str | None = None
    pruned: set[Path] = field(default_factory=set)
    summary: str | None = None
    error: SeqbenchError | None = None
    engine: Callable[[], Engine] | None = None

    def __post_init__(self) -> None:
        self.id = short_hash([str(self.composer.config_dir), *sorted(self.command)])
        self.started = time.monotonic()
        self.last_update = 0.0

    def launch(
        self, overrides: Sequence[Sequence[str]], engine: Callable[[], Engine]
    ) -> list[Ending]:
        """Compose jobs, run them on an engine, and wait for them.

        Args:
            overrides: overrides of each job.
            engine: builds the engine; called only if a job is due.

        Returns:
            The ending of each job, in the order of `overrides`.

        Raises:
            ConfigError: if the overrides of a job are invalid; no job has been started then.
            KeyboardInterrupt: on a second Ctrl-C; running jobs are killed.
        """
        # Compose all jobs before starting any: a typing error must not show up hours later.
        return self.run(self.compose(overrides), engine)

    def run(self, jobs: Sequence[Job], engine: Callable[[], Engine]) -> list[Ending]:
        """Run jobs on an engine, wait for them, and return their endings; see `launch`."""
        self.engine = engine
        new: dict[Path, Job] = {}
        for job in jobs:
            if job.run.folder not in self.jobs:
                new.setdefault(job.run.folder, job)
        self.jobs |= new
        self.view.planned(list(new.values()))
        due = [job for job in new.values() if self.is_due(job)]
        if not self.policy.dry_run and due:
            self.describe()
            self.run_jobs(due, engine())
        missing = Ending("interrupted", self.stopped or "not started")
        return [self.endings.get(job.run.folder, missing) for job in jobs]

    def compose(self, overrides: Sequence[Sequence[str]]) -> list[Job]:
        """Return the job of each list of overrides.

        Raises:
            ConfigError: if the overrides of a job are invalid.
        """
        jobs = []
        for words, config in zip(overrides, compose_all(self.composer, overrides), strict=True):
            run = Run.of(config)
            output = Path(config["output_dir"]) / "sweeps" / self.id / f"{run.run_id}.txt"
            policy = self.policy
            jobs.append(Job(tuple(words), config, run, output, policy.retry, policy.force))
        return jobs

    def is_due(self, job: Job) -> bool:
        """Return True if a job must be trained; if not, record its ending."""
        try:
            if job.is_due():
                return True
            record = job.run.record
            assert record is not None
            self.end(job, of_record(record, job.run), found=True)
        except SeqbenchError as error:  # a damaged record must not stop the other jobs
            self.end(job, Ending("failed", f"{error} (--force trains it again)"), found=True)
        return False

    def is_over(self, job: Job) -> bool:
        """Return True if a job has ended without being interrupted."""
        ending = self.endings.get(job.run.folder)
        return ending is not None and ending.how != "interrupted"

    @property
    def failures(self) -> dict[Path, Ending]:
        """Return run folder -> ending of the jobs that failed, diverged or were killed."""
        return {folder: e for folder, e in self.endings.items() if e.how in FAILURES}

    def failure_groups(self) -> list[list[Job]]:
        """Return the failed jobs, grouped by endings that differ in numbers and paths only."""
        groups: dict[str, list[Job]] = {}
        for folder, ending in self.failures.items():
            key = re.sub(r"\S*\d\S*", "#", f"{ending.how} {ending.reason}")
            groups.setdefault(key, []).append(self.jobs[folder])
        return list(groups.values())

    @property
    def missing(self) -> int:
        """Return the number of jobs without a completed run."""
        return len(self.jobs) - sum(ending.how == "completed" for ending in self.endings.values())

    @property
    def was_interrupted(self) -> bool:
        """Return True if the user or the time limit stopped the sweep."""
        return self.stopped in ("interrupted", TIME_LIMIT)

    @property
    def exit_code(self) -> int:
        """Return the exit code of a sweep with missing runs.

        130 if it was interrupted; else that of the failures if all missing runs failed with the
        same code; else 1.
        """
        codes = {ending.code for ending in self.failures.values()}
        if self.was_interrupted:
            return 130
        return codes.pop() if len(self.failures) == self.missing and len(codes) == 1 else 1

    def run_jobs(self, jobs: Iterable[Job], engine: Engine) -> None:
        """Run jobs on an engine until none is left or the sweep is stopped; close the engine.

        Without `policy.wait`, return after the first jobs have been started.

        Raises:
            KeyboardInterrupt: on a second Ctrl-C; running jobs are killed.
        """
        self.waiting.extend(jobs)
        try:
            with signals() as received:
                while self.waiting or self.held or engine.working():
                    if self.stopped is None:
                        self.stopped = self.reason_to_stop(bool(received()))
                        if self.stopped is not None:
                            self.waiting.clear()
                            self.held.clear()
                            engine.stop(engine.working(), now=False)
                    self.start(engine)
                    for job, ending in engine.ended(LOOK / 5):
                        self.handle(job, ending)
                    self.update(engine)
                    if not self.policy.wait:
                        break
                # Otherwise a search would continue with its next trials.
                self.stopped = self.stopped or self.reason_to_stop(bool(received()))
        except KeyboardInterrupt:
            engine.stop(engine.working(), now=True)
            raise
        finally:
            engine.close()

    def reason_to_stop(self, interrupted: bool) -> str | None:
        """Return the reason to start no more jobs, or `None` to go on.

        Args:
            interrupted: True if a signal asked the sweep to stop.
        """
        if interrupted:
            return "interrupted"
        limit = self.policy.seconds
        if limit is not None and time.monotonic() - self.started > limit:
            return TIME_LIMIT
        return "a run failed" if self.policy.fail_fast and self.failures else None

    def start(self, engine: Engine) -> None:
        """Start as many waiting jobs as the engine accepts."""
        batch: list[Job] = []
        room = engine.room()
        while self.waiting and len(batch) < room:
            job = self.waiting.popleft()
            if lock.is_held(job.run.folder):
                self.held.append(job)
            elif self.is_due(job):  # another process may have finished it since
                batch.append(job)
        if batch:
            engine.start(batch)

    def handle(self, job: Job, ending: Ending) -> None:
        """Handle a job's ending that the engine reports."""
        progress = self.running.pop(job.run.folder, Progress(job.run))
        if ending.how == "held":
            if self.stopped is None:
                self.held.append(job)
            return
        if ending.how == "interrupted" and job.run.folder in self.pruned and not self.stopped:
            ending = Ending("pruned", f"pruned at step {progress.step:,}")
        self.end(job, ending, found=False)

    def end(self, job: Job, ending: Ending, found: bool) -> None:
        """Record a job's ending, and pass it to the view."""
        self.endings[job.run.folder] = ending
        self.view.ended(job, ending, found)

    def update(self, engine: Engine) -> None:
        """Update the progress of running jobs, prune some, and let the view refresh.

        Jobs that other processes have released move back to `waiting`. The files are read at most
        once in `LOOK` seconds.
        """
        now = time.monotonic()
        if now - self.last_update >= LOOK:
            self.last_update = now
            jobs = {job.run.folder: job for job in engine.working()}
            self.running = {
                folder: self.running.get(folder) or Progress(job.run)
                for folder, job in jobs.items()
            }
            for folder, progress in self.running.items():
                progress.look()
                if self.prune is None or folder in self.pruned:
                    continue
                if self.prune(jobs[folder], progress):
                    self.pruned.add(folder)
                    engine.stop([jobs[folder]], now=False)
            for _ in range(len(self.held)):
                job = self.held.popleft()
                (self.held if lock.is_held(job.run.folder) else self.waiting).append(job)
        self.view.look(self)

    def describe(self) -> None:
        """Append overrides, host, time and jobs of this launch to the sweep's `sweep.jsonl`."""
        folder = next(iter(self.jobs.values())).output.parent
        make_folders(folder)
        description = {
            "schema": 1,
            "overrides": list(self.command),
            "config_dir": self.composer.config_dir,
            "host": host(),
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "jobs": {job.run.run_id: list(job.words) for job in self.jobs.values()},
        }
        path = folder / "sweep.jsonl"
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(description) + "\n")
        share(path)


def short_hash(parts: Iterable[str]) -> str:
    """Return 12 hex digits of the SHA-256 of some texts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
