"""A sweep: many jobs, each run once, whatever happens to any of them or to the sweep itself.

What is done stands on disk, run by run, and nowhere else. So a sweep that was cut off is given
again and finds out what is missing; two that overlap share the work; a wider one adds to it.
"""

import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from seqbench.configuration import Composer
from seqbench.errors import ConfigError, SeqbenchError
from seqbench.interruption import signals
from seqbench.launch.engine import Engine
from seqbench.launch.job import Ending, Job, of_record
from seqbench.launch.progress import Progress
from seqbench.machine import host
from seqbench.overrides import typed
from seqbench.runs import lock
from seqbench.runs.run import Run

# Seconds between two looks at the folders of the runs in work.
LOOK = 1.0


@dataclass(frozen=True)
class Policy:
    """What a person asks of a sweep, besides its jobs.

    Attributes:
        retry: train again what failed or diverged.
        force: train again what is over.
        fail_fast: after the first failure start no other job, and stop those in work.
        seconds: time after which no job is started, and those in work are stopped.
        dry_run: say what would be done.
        wait: stay until the jobs are over, rather than leave them to the cluster.
    """

    retry: bool = False
    force: bool = False
    fail_fast: bool = False
    seconds: float | None = None
    dry_run: bool = False
    wait: bool = True


class View:
    """Watches a sweep; does nothing with it. Subclasses override what they care for.

    Attributes:
        split: of which a score tells how a job ended; a search does not look at test.
    """

    split = "test"

    def planned(self, jobs: Sequence[Job]) -> None:
        """These jobs are asked for, those that are over already among them."""

    def ended(self, job: Job, ending: Ending, found: bool) -> None:
        """A job is over; `found`: it was, before this sweep came to it."""

    def look(self, sweep: "Sweep") -> None:
        """Time has passed; called several times a second."""


@dataclass
class Sweep:
    """The jobs that were asked for, and what has become of them.

    Hydra hands it from the command to the launcher as its task function.

    Attributes:
        command: the overrides as they were typed.
        composer: makes configurations of overrides.
        policy: what is asked of it.
        view: watches it.
        judge: stops a run in work that has no prospects; a search sets it.
        jobs: by the folder of their run, in the order asked for.
        endings: of those that are over.
        working: how far those have come that are being trained.
        waiting: what is still to be started.
        elsewhere: what other processes are training.
        stopped: why it ended before all was done.
        hopeless: runs in work that the judge has stopped.
        findings: what a search found, in words.
        engine: makes what does the jobs; `None` before the launcher has been called.
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
        """12 hex digits that name what was typed."""
        what = [str(self.composer.config_dir), *sorted(self.command)]
        return hashlib.sha256("\0".join(what).encode()).hexdigest()[:12]

    def launch(self, asked: Sequence[Sequence[str]], engine: Callable[[], Engine]) -> list[Ending]:
        """Have jobs done, and wait for them.

        Args:
            asked: overrides, for each job.
            engine: makes what does them; it is not made if there is nothing to do.

        Returns:
            How each ended, in the order asked for.

        Raises:
            ConfigError: one of them is no configuration; none has been started.
            Interrupted: a second Ctrl-C.
        """
        # All of them before the first is started: a typing error must not show up in the morning.
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
        """The job that some overrides ask for."""
        try:
            config = self.composer.compose(words)
        except ConfigError as error:
            raise ConfigError(f"{error} (in the job {' '.join(typed(words))})") from error
        run = Run.of(config)
        output = Path(config["output_dir"]) / "sweeps" / self.id / f"{run.run_id}.txt"
        return Job(tuple(words), config, run, output, self.policy.retry, self.policy.force)

    def due(self, job: Job) -> bool:
        """Whether a job is to be done; if not, it counts as ended."""
        try:
            if job.is_due():
                return True
            record = job.run.record
            assert record is not None
            self.settle(job, of_record(record, job.run), found=True)
        except SeqbenchError as error:  # its record is damaged, which the others need not suffer
            self.settle(job, Ending("failed", f"{error} (--force trains it again)"), found=True)
        return False

    def is_over(self, job: Job) -> bool:
        """Whether a job came to an end, rather than being interrupted or left alone."""
        ending = self.endings.get(job.run.folder)
        return ending is not None and ending.how != "interrupted"

    def conduct(self, jobs: Iterable[Job], engine: Engine) -> None:
        """Have jobs done by an engine until none is left, or somebody says stop."""
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
                # A search must not go on with its next runs.
                self.stopped = self.stopped or self.reason_to_stop(bool(asked_to_stop()))
        except KeyboardInterrupt:
            engine.stop(engine.working(), now=True)
            raise
        finally:
            engine.close()

    def reason_to_stop(self, asked: bool) -> str | None:
        """Why no other job should be started, if there is a reason."""
        if asked:
            return "interrupted"
        limit = self.policy.seconds
        if limit is not None and time.monotonic() - self.started > limit:
            return "its time is up"
        failed = any(ending.how in FAILURES for ending in self.endings.values())
        return "a run failed" if failed and self.policy.fail_fast else None

    def start(self, engine: Engine) -> None:
        """Give the engine as many jobs as it takes."""
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
        """An engine says that a job has ended."""
        self.working.pop(job.run.folder, None)
        if ending.how == "held":
            if self.stopped is None:
                self.elsewhere.append(job)
            return
        if ending.how == "interrupted" and job.run.folder in self.hopeless and not self.stopped:
            ending = Ending("pruned", ending.reason)
        self.settle(job, ending, found=False)

    def settle(self, job: Job, ending: Ending, found: bool) -> None:
        """Note how a job ended."""
        self.endings[job.run.folder] = ending
        self.view.ended(job, ending, found)

    def look(self, engine: Engine) -> None:
        """See how far the runs in work have come, and whether others have let go of theirs."""
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
        """Add a line to the sweep's description: what was asked for, and when."""
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


# Endings that a person has to look at.
FAILURES = ("failed", "diverged", "killed")
