"""What a person sees of a sweep: a live table in a terminal, lines where there is none."""

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from seqbench.launch.sweep import FAILURES, View
from seqbench.wording import duration, number, plain, score

if TYPE_CHECKING:
    from seqbench.launch.job import Ending, Job
    from seqbench.launch.progress import Progress
    from seqbench.launch.sweep import Sweep

# Seconds between two pictures, and between two signs of life in a log.
PICTURE, SIGN_OF_LIFE = 0.25, 60.0
# Failures that the live table keeps in sight, and runs that ended last.
FAILURES_SHOWN, ENDS_SHOWN = 5, 3


class Terminal(View):
    """Shows a sweep on stderr."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        # The launcher forks, which a thread that draws would not survive: it is drawn by hand.
        self.live = Live(console=self.console, auto_refresh=False, transient=True)
        self.names = Names()
        self.begin = time.monotonic()
        self.drawn = self.begin
        self.count = self.trained = self.completed = self.found = 0
        self.failures: list[Text] = []
        self.ends: list[Text] = []

    def planned(self, jobs: Sequence["Job"]) -> None:
        self.names.learn(jobs)
        self.count += len(jobs)

    def ended(self, job: "Job", ending: "Ending", found: bool) -> None:
        self.found += found
        self.completed += ending.how == "completed"
        self.trained += not found
        line = Text(f"{self.names.of(job)}: {told(job, ending)}")
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
        if now - self.drawn < (PICTURE if self.console.is_terminal else SIGN_OF_LIFE):
            return
        self.drawn = now
        if not self.console.is_terminal:
            self.console.print(self.counts(sweep), soft_wrap=True)
            for folder, progress in list(sweep.working.items())[:ENDS_SHOWN]:
                told_of = {name: text for name, text in figures(progress).items() if text}
                line = ", ".join(f"{name} {text}" for name, text in told_of.items())
                self.console.print(f"  {self.names.of(sweep.jobs[folder])}: {line}", soft_wrap=True)
            return
        if not self.live.is_started:
            self.live.start()
        self.live.update(self.picture(sweep), refresh=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self.live.is_started:
            self.live.stop()

    def counts(self, sweep: "Sweep") -> Text:
        """How many jobs are where, in a line."""
        parts = [f"{self.completed}/{self.count} completed"]
        if self.found:
            parts[0] += f" ({self.found} found so)"
        parts += [
            f"{count} {what}"
            for count, what in (
                (len(sweep.working), "running"),
                (len(sweep.waiting), "queued"),
                (len(sweep.elsewhere), "trained by another process"),
                (len(self.failures), "failed"),
            )
            if count
        ]
        if sweep.stopped:
            parts.append(f"{sweep.stopped}: stopping")
        elif (left := self.seconds_left(sweep)) is not None:
            parts.append(f"about {duration(left)} left")
        return Text(", ".join(parts), style="bold")

    def seconds_left(self, sweep: "Sweep") -> float | None:
        """Until all is done: as fast as it went so far, and no sooner than what is running."""
        running = [p.seconds_left for p in sweep.working.values() if p.seconds_left is not None]
        waiting = len(sweep.waiting) + len(sweep.elsewhere)
        if not waiting:
            return max(running, default=None)
        if not self.trained:
            return None
        each = (time.monotonic() - self.begin) / self.trained
        return max([each * (waiting + len(sweep.working) / 2), *running])

    def picture(self, sweep: "Sweep") -> RenderableType:
        """Everything at a glance, no higher and no wider than the terminal."""
        failures = self.failures[-FAILURES_SHOWN:]
        room = max(1, self.console.height - len(failures) - ENDS_SHOWN - 6)
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("running", no_wrap=True, overflow="ellipsis", ratio=1)
        narrow = self.console.width < 70
        columns = (
            ("step", "valid", "left") if narrow else ("step", "loss", "valid", "speed", "left")
        )
        for name in columns:
            table.add_column(name, justify="right", no_wrap=True)
        for folder, progress in list(sweep.working.items())[:room]:
            cells = figures(progress)
            table.add_row(
                Text(self.names.of(sweep.jobs[folder])), *(cells[name] for name in columns)
            )
        if (more := len(sweep.working) - room) > 0:
            table.add_row(Text(f"and {more} more", "dim"))
        lines = [*failures, *self.ends[-ENDS_SHOWN:]]
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
        return Group(self.counts(sweep), table, *lines)


class Names:
    """Names jobs by what tells them apart: task, model, and the values that vary."""

    def __init__(self) -> None:
        self.values: dict[str, set[str]] = {}

    def learn(self, jobs: Iterable["Job"]) -> None:
        """See which values there are."""
        for job in jobs:
            for word in job.words:
                key, _, value = word.lstrip("+").partition("=")
                self.values.setdefault(key, set()).add(value)

    def of(self, job: "Job") -> str:
        """The name of a job."""
        choices = job.config["choices"]
        words = [word.lstrip("+") for word in job.words]
        varied = [w for w in words if len(self.values.get(w.partition("=")[0], ())) > 1]
        rest = [w for w in varied if w.partition("=")[0] not in ("task", "model")]
        return plain(" ".join([choices["task"], choices["model"], *rest]))


def figures(progress: "Progress") -> dict[str, str]:
    """How far a run has come, by column."""
    total = f"/{progress.total_steps:,}" if progress.total_steps else ""
    valid = ""
    if progress.metric is not None and progress.score is not None:
        valid = score(progress.metric, progress.score)
    return {
        "step": f"{progress.step:,}{total}",
        "loss": number(progress.loss) if progress.loss is not None else "",
        "valid": plain(valid),
        "speed": f"{number(progress.speed)}/s" if progress.speed else "",
        "left": duration(progress.seconds_left) if progress.speed else "",
    }


def told(job: "Job", ending: "Ending") -> str:
    """How a job ended, in a line."""
    if ending.how == "completed":
        record = job.run.record
        assert record is not None
        reached = score(record.score.metric, record.score.value) if record.score else "no score"
        took = duration(record.measured.get("seconds"))
        return f"completed, test {reached} after {took} of training"
    log = f" (see {ending.log})" if ending.log else ""
    # Without a record the run is not over, and the same command goes on with it.
    over = ending.how in ("failed", "diverged") and job.run.record_path.exists()
    retry = "; --retry runs it again" if over else ""
    how = "" if ending.how == "killed" else f"{ending.how}: "  # by what, the reason says
    return plain(f"{how}{ending.reason}{log}{retry}")
