"""Run the jobs of a sweep on an engine, each run once, even if jobs or the sweep itself crash.

All state is on disk, in the runs' folders. The same sweep, started again after an interruption,
trains the missing runs. Overlapping sweeps share the work, and a larger sweep adds to a smaller.
"""

import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from seqbench.config.compose import Composer
from seqbench.config.overrides import as_typed
from seqbench.errors import ConfigError, SeqbenchError
from seqbench.launch.engine import Engine
from seqbench.launch.job import Ending, Job, of_record
from seqbench.launch.progress import Progress
from seqbench.machine import host
from seqbench.runs import lock
from seqbench.runs.run import Run
from seqbench.training.interruption import signals

# Seconds between two reads of the folders of running jobs.
LOOK = 1.0


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
        judge: returns False to stop a running job early; set by a search.
        jobs: run folder -> job, in the order requested.
        endings: run folder -> ending of a job that has ended.
        working: run folder -> progress of a running job.
        waiting: jobs to start.
        elsewhere: jobs whose runs other processes are training.
        stopped: reason why the sweep stopped early; `None` if it did not.
        hopeless: folders of the runs that `judge` has stopped.
        findings: result of a search as text.
        engine: function that builds the engine; `None` before the launcher is called.
    """

    command: Sequence[str]
    composer: Composer
    policy: Policy = field(default_factory=Policy)
    view: View = field(default_factory=View)
    judge: Callable[[Job, Progress], bool] | None = None
    jobs: dict[Path, Job] = field(default_factory=dict)
    endings: dict[Path, Ending] = field(default_factory=dict)
    working: dict[Path, Progress] = field(default_factory=dict)
    waiting: deque[Job] = field(default_factory=deque)
    elsewhere: deque[Job] = field(default_factory=deque)
    stopped: str | None = None
    hopeless: set[Path] = field(default_factory=set)
    findings: str | None = None
    engine: Callable[[], Engine] | None = None

    def __post_init__(self) -> None:
        self.started = time.monotonic()
        self.looked = 0.0

    @property
    def id(self) -> str:
        """Return 12 hex digits: a hash of the sorted overrides and the config folder."""
        what = [str(self.composer.config_dir), *sorted(self.command)]
        return hashlib.sha256("\0".join(what).encode()).hexdigest()[:12]

    def launch(self, asked: Sequence[Sequence[str]], engine: Callable[[], Engine]) -> list[Ending]:
        """Run jobs on an engine, and wait for them.

        Args:
            asked: overrides of each job.
            engine: builds the engine; called only if a job is due.

        Returns:
            The ending of each job, in the order of `asked`.

        Raises:
            ConfigError: if the overrides of a job are invalid; no job has been started then.
            KeyboardInterrupt: on a second Ctrl-C; running jobs are killed.
        """
        # Compose all jobs before starting any: a typing error must not show up hours later.
        jobs = [self.job(words) for words in asked]
        self.engine = engine
        new: dict[Path, Job] = {}
        for job in jobs:
            if job.run.folder not in self.jobs:
                new.setdefault(job.run.folder, job)
        self.jobs |= new
        self.view.planned(list(new.values()))
        due = [job for job in new.values() if self.due(job)]
        if not self.policy.dry_run and due:
            self.describe()
            self.conduct(due, engine())
        missing = Ending("interrupted", self.stopped or "not started")
        return [self.endings.get(job.run.folder, missing) for job in jobs]

    def job(self, words: Sequence[str]) -> Job:
        """Return the job of a list of overrides.

        Raises:
            ConfigError: if the overrides are invalid.
        """
        try:
            config = self.composer.compose(words)
        except ConfigError as error:
            raise ConfigError(f"{error} (in the job {' '.join(as_typed(words))})") from error
        run = Run.of(config)
        output = Path(config["output_dir"]) / "sweeps" / self.id / f"{run.run_id}.txt"
        return Job(tuple(words), config, run, output, self.policy.retry, self.policy.force)

    def due(self, job: Job) -> bool:
        """Return True if a job must be trained; if not, record its ending."""
        try:
            if job.is_due():
                return True
            record = job.run.record
            assert record is not None
            self.settle(job, of_record(record, job.run), found=True)
        except SeqbenchError as error:  # a damaged record must not stop the other jobs
            self.settle(job, Ending("failed", f"{error} (--force trains it again)"), found=True)
        return False

    def is_over(self, job: Job) -> bool:
        """Return True if a job has ended without being interrupted."""
        ending = self.endings.get(job.run.folder)
        return ending is not None and ending.how != "interrupted"

    def conduct(self, jobs: Iterable[Job], engine: Engine) -> None:
        """Run jobs on an engine until none is left or the sweep is stopped; close the engine.

        Without `policy.wait`, return after the first jobs have been started.

        Raises:
            KeyboardInterrupt: on a second Ctrl-C; running jobs are killed.
        """
        self.waiting.extend(jobs)
        try:
            with signals() as asked_to_stop:
                while self.waiting or self.elsewhere or engine.working():
                    if self.stopped is None:
                        self.stopped = self.reason_to_stop(bool(asked_to_stop()))
                        if self.stopped is not None:
                            self.waiting.clear()
                            self.elsewhere.clear()
                            engine.stop(engine.working(), now=False)
                    self.start(engine)
                    for job, ending in engine.ended(LOOK / 5):
                        self.over(job, ending)
                    self.look(engine)
                    if not self.policy.wait:
                        break
                # Otherwise a search would continue with its next trials.
                self.stopped = self.stopped or self.reason_to_stop(bool(asked_to_stop()))
        except KeyboardInterrupt:
            engine.stop(engine.working(), now=True)
            raise
        finally:
            engine.close()

    def reason_to_stop(self, asked: bool) -> str | None:
        """Return the reason to start no more jobs, or `None` to go on.

        Args:
            asked: True if a signal asked the sweep to stop.
        """
        if asked:
            return "interrupted"
        limit = self.policy.seconds
        if limit is not None and time.monotonic() - self.started > limit:
            return "its time is up"
        failed = any(ending.how in FAILURES for ending in self.endings.values())
        return "a run failed" if failed and self.policy.fail_fast else None

    def start(self, engine: Engine) -> None:
        """Start as many waiting jobs as the engine accepts."""
        batch: list[Job] = []
        room = engine.room()
        while self.waiting and len(batch) < room:
            job = self.waiting.popleft()
            if lock.is_held(job.run.folder):
                self.elsewhere.append(job)
            elif self.due(job):  # another process may have finished it since
                batch.append(job)
        if batch:
            engine.start(batch)

    def over(self, job: Job, ending: Ending) -> None:
        """Handle a job's ending that the engine reports."""
        self.working.pop(job.run.folder, None)
        if ending.how == "held":
            if self.stopped is None:
                self.elsewhere.append(job)
            return
        if ending.how == "interrupted" and job.run.folder in self.hopeless and not self.stopped:
            ending = Ending("pruned", ending.reason)
        self.settle(job, ending, found=False)

    def settle(self, job: Job, ending: Ending, found: bool) -> None:
        """Record a job's ending, and pass it to the view."""
        self.endings[job.run.folder] = ending
        self.view.ended(job, ending, found)

    def look(self, engine: Engine) -> None:
        """Update the progress of running jobs, and let the view refresh.

        Jobs that other processes have released move back to `waiting`. The files are read at most
        once in `LOOK` seconds.
        """
        now = time.monotonic()
        if now - self.looked >= LOOK:
            self.looked = now
            in_work = {job.run.folder: job for job in engine.working()}
            self.working = {
                name: self.working.get(name) or Progress(job.run) for name, job in in_work.items()
            }
            for name, progress in self.working.items():
                progress.look()
                if self.judge is None or name in self.hopeless:
                    continue
                if not self.judge(in_work[name], progress):
                    self.hopeless.add(name)
                    engine.stop([in_work[name]], now=False)
            for _ in range(len(self.elsewhere)):
                job = self.elsewhere.popleft()
                held = lock.is_held(job.run.folder)
                (self.elsewhere if held else self.waiting).append(job)
        self.view.look(self)

    def describe(self) -> None:
        """Append overrides, host, time and jobs of this launch to the sweep's `sweep.jsonl`."""
        folder = next(iter(self.jobs.values())).output.parent
        folder.mkdir(parents=True, exist_ok=True)
        description = {
            "schema": 1,
            "overrides": list(self.command),
            "config_dir": self.composer.config_dir,
            "host": host(),
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "jobs": {job.run.run_id: list(job.words) for job in self.jobs.values()},
        }
        with (folder / "sweep.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(description) + "\n")


# Endings that the user has to look into.
FAILURES = ("failed", "diverged", "killed")
