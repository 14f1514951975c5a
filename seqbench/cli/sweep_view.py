"""Progress display of a sweep on stderr: a live table in a terminal, log lines elsewhere."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from seqbench.cli.running import figures, running_table
from seqbench.config.missing_recipe import missing_recipes
from seqbench.config.overrides import as_typed
from seqbench.launch.sweep import FAILURES, View
from seqbench.runs import lock
from seqbench.wording import duration, plain, score

if TYPE_CHECKING:
    from seqbench.launch.job import Ending, Job
    from seqbench.runs import lock
from seqbench.launch.sweep import Sweep

# Seconds between refreshes of the live table, and between progress lines in a log.
LIVE_INTERVAL, LOG_INTERVAL = 0.25, 60.0
# Numbers of latest failures and of latest ended runs below the live table.
FAILURES_SHOWN, ENDS_SHOWN = 5, 3
QUOTE = "'"


class Terminal(View):
    """View that shows a sweep on stderr.

    Args:
        overrides: as typed.
        config_dir: folder with the user's choices.
    """

    def __init__(self, overrides: Sequence[str] = (), config_dir: str | None = None) -> None:
        self.overrides, self.config_dir = overrides, config_dir
        self.noted: set[str] = set()
        self.console = Console(stderr=True, highlight=False)
        # No refresh thread: the launcher forks, and threads do not survive a fork.
        self.live = Live(console=self.console, auto_refresh=False, transient=True)
        self.names = Names()
        self.begin = time.monotonic()
        self.drawn = -LOG_INTERVAL
        self.stopped: str | None = None
        self.count = self.trained = self.completed = self.found = 0
        self.failures: list[Text] = []
        self.ends: list[Text] = []

    def planned(self, jobs: Sequence["Job"]) -> None:
        self.names.learn(jobs)
        self.count += len(jobs)
        configs = (job.config for job in jobs)
        for name, note in missing_recipes(configs, self.overrides, self.config_dir).items():
            if name not in self.noted:
                self.noted.add(name)
                self.console.print(Text(plain(note), style="yellow"), soft_wrap=True)

    def ended(self, job: "Job", ending: "Ending", found: bool) -> None:
        self.found += found and ending.how == "completed"
        self.completed += ending.how == "completed"
        self.trained += not found and ending.how in ("completed", "diverged")
        line = Text(f"{self.names.of(job)}: {outcome(job, ending, self.split)}")
        if ending.how in FAILURES:
            line.stylize("red")
            self.failures.append(line)
        elif not found:
            self.ends = [*self.ends[-ENDS_SHOWN:], line]
        if not self.console.is_terminal and (not found or ending.how in FAILURES):
            done = self.completed + len(self.failures)
            self.console.print(Text(f"[{done}/{self.count}] ") + line, soft_wrap=True)

    def look(self, sweep: "Sweep") -> None:
        now = time.monotonic()
        pause = LIVE_INTERVAL if self.console.is_terminal else LOG_INTERVAL
        if now - self.drawn < pause and sweep.stopped == self.stopped:
            return
        self.drawn, self.stopped = now, sweep.stopped
        if not self.console.is_terminal:
            self.console.print(self.counts(sweep), soft_wrap=True)
            begun = [(folder, p) for folder, p in sweep.running.items() if p.step]
            for folder, progress in begun[:ENDS_SHOWN]:
                cells = figures(progress).items()
                line = ", ".join(f"{column} {text}" for column, text in cells if text)
                name = self.names.of(sweep.jobs[folder])
                self.console.print(Text(f"  {name}: {line}"), soft_wrap=True)
            return
        if not self.live.is_started:
            self.live.start()
        self.live.update(self.picture(sweep), refresh=True)

    def close(self) -> None:
        """Restore the terminal."""
        if self.live.is_started:
            self.live.stop()

    def counts(self, sweep: "Sweep") -> Text:
        """Return a line with the number of jobs in each state, and the time left."""
        parts = [f"{self.completed}/{self.count} completed"]
        if self.found:
            parts[0] += f" ({self.found} before)"
        # Jobs submitted to a cluster may wait there before they start.
        running = sum(progress.total_steps is not None for progress in sweep.running.values())
        holders = {lock.holder(job.run.folder / ".lease") for job in sweep.held}
        others = " and others" if len(holders) > 1 else ""
        parts += [
            f"{count} {what}"
            for count, what in (
                (running, "running"),
                (len(sweep.running) - running, "starting"),
                (len(sweep.waiting), "queued"),
                (len(sweep.held), f"held by {min(holders, default='')}{others}"),
                (len(self.failures), "failed"),
            )
            if count
        ]
        if sweep.stopped:
            again = " (Ctrl-C again: at once)" if sweep.stopped == "interrupted" else ""
            parts.append(sweep.stopped)
            if sweep.running:
                parts[-1] += f": writing checkpoints{again}"
        elif (left := self.seconds_left(sweep)) is not None:
            parts.append(f"about {duration(left)} left")
        return Text(", ".join(parts), style="bold")

    def seconds_left(self, sweep: "Sweep") -> float | None:
        """Estimate the seconds until all jobs are done; `None` if there is no speed yet.

        Uses the mean time per run so far, but is at least the longest time left of a running job.
        """
        running = [p.seconds_left for p in sweep.running.values() if p.seconds_left is not None]
        waiting = len(sweep.waiting) + len(sweep.held)
        if not waiting:
            return max(running, default=None)
        begun = [(p, p.total_steps) for p in sweep.running.values() if p.total_steps]
        share = sum(p.step / total for p, total in begun)
        if self.trained:
            each = (time.monotonic() - self.begin) / (self.trained + share)
        elif speed := sum((p.speed or 0.0) / total for p, total in begun):
            each = 1 / speed
        else:
            return None
        return max([each * (waiting + len(sweep.running) - share), *running])

    def picture(self, sweep: "Sweep") -> RenderableType:
        """Return counts, running jobs, failures and last ends, cut to the terminal's size."""
        failures = self.failures[-FAILURES_SHOWN:]
        room = max(1, self.console.height - len(failures) - ENDS_SHOWN - 6)
        shown = list(sweep.running.items())[:room]
        running = [(self.names.of(sweep.jobs[folder]), progress) for folder, progress in shown]
        table = running_table(running, self.console.width)
        if (more := len(sweep.running) - room) > 0:
            table.add_row(Text(f"and {more} more", "dim"))
        lines = [*failures, *self.ends[-ENDS_SHOWN:]]
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
        return Group(self.counts(sweep), table, *lines)


class Names:
    """Short names of jobs: task, model, and the overrides that vary between jobs.

    A key is shortened to its last part, unless two varying keys share that part.
    """

    def __init__(self, jobs: Iterable["Job"] = ()) -> None:
        self.values: dict[str, set[str]] = {}
        self.uses: Counter[str] = Counter()
        self.jobs = 0
        self.learn(jobs)

    def learn(self, jobs: Iterable["Job"]) -> None:
        """Collect the override values of more jobs."""
        for job in jobs:
            self.jobs += 1
            for key, value in settings_of(job).items():
                self.values.setdefault(key, set()).add(value)
                self.uses[key] += 1

    @property
    def varied(self) -> set[str]:
        """Return the keys whose values differ between jobs, or that some jobs alone set."""
        return {
            key
            for key, values in self.values.items()
            if len(values) > 1 or self.uses[key] < self.jobs
        }

    @property
    def shared(self) -> str:
        """Return the settings of all jobs that no name has, as in `task.horizon=96 seed=0`."""
        told = {*self.varied, "task", "model"}
        shared = {key: values for key, values in self.values.items() if key not in told}
        return plain(" ".join(f"{key}={value}" for key, [value] in shared.items()))

    def of(self, job: "Job") -> str:
        """Return the name of a job."""
        choices, varied = job.config["choices"], self.varied
        ends = Counter(key.rpartition(".")[2] for key in varied)
        words = [choices["task"], choices["model"]]
        for key, value in settings_of(job).items():
            end = key.rpartition(".")[2]
            if key in varied and key not in ("task", "model"):
                words.append(f"{end if ends[end] == 1 else key}={value}")
        return plain(" ".join(words))


def settings_of(job: "Job") -> dict[str, str]:
    """Return the overrides of a job by key, as typed but without quotes."""
    words = (word.partition("=") for word in as_typed(job.words))
    return {key: value.strip(QUOTE) for key, _, value in words}


def outcome(job: "Job", ending: "Ending", split: str = "test") -> str:
    """Describe in one line how a job ended, with its score on a split if it completed."""
    if ending.how != "completed":
        # The reasons of other endings need no prefix.
        how = "failed: " if ending.how == "failed" else ""
        return how + why(job, ending)
    record = job.record
    if record is None or record.score is None:
        return "completed"
    metric = record.score.metric
    value = record.score.value if split == "test" else record.metrics.get(split, {}).get(metric)
    seconds = duration(record.measured.get("seconds"))
    return f"completed, {split} {score(metric, value)} after {seconds} of training"


def why(job: "Job", ending: "Ending") -> str:
    """Return why a job did not complete, its log file, and the option that runs it again."""
    log = f" (see {ending.log})" if ending.log else ""
    # No hint for a diverged run: it would diverge again.
    retry = ending.how == "failed" and job.needs_retry(ending)
    return plain(f"{ending.reason}{log}{'; --retry runs it again' if retry else ''}")
