"""Progress display of a training run on stderr: a header, a progress bar, a final panel."""

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.text import Text
from tqdm import tqdm

from seqbench.cli.rich_tables import facts_panel
from seqbench.config.compression import method
from seqbench.errors import Interrupted
from seqbench.results.command import resume_command
from seqbench.results.papers import comparability, papers, published
from seqbench.runs.log import LineLog, headline, outcome
from seqbench.runs.observer import Observer
from seqbench.runs.record import Record
from seqbench.runs.run import Run
from seqbench.wording import amount, number, plain, score

# Columns of the labels in the final output.
WIDTH = 16
# Terminal columns from which the bar also shows the metric's name and the best score.
WIDE = 100
# Columns to the right of the bar.
ROOM = 4


class Bar(tqdm):  # type: ignore[type-arg]
    """A progress bar that leaves room at its end for the `^C` that a terminal prints."""

    @property
    def format_dict(self) -> dict[str, Any]:
        facts = dict(super().format_dict)
        if facts["ncols"]:
            facts["ncols"] = max(1, facts["ncols"] - ROOM)
        return facts


class Terminal(Observer):
    """Observer that shows a run on stderr: a bar in a terminal, log lines elsewhere.

    Args:
        config: config of the run.
        again: the user's arguments of `seqbench train`, to suggest a run with the next seed; empty
            to suggest none.
        notes: lines to show before training.
    """

    def __init__(
        self, config: dict[str, Any], again: Sequence[str], notes: Sequence[str] = ()
    ) -> None:
        self.notes = notes
        self.again = [word for word in again if not word.startswith("seed=")]
        self.console = Console(stderr=True, highlight=False)
        self.folder = Run.of(config).folder
        place = config["output_dir"]
        self.place = [] if place == "outputs" else ["--output-dir", place]
        self.lines = LineLog(lambda line: print(line, file=sys.stderr, flush=True))
        self.bar: Bar | None = None
        self.trained = False
        self.shown: dict[str, str] = {}
        self.best: float | None = None

    def started(self, facts: dict[str, Any]) -> None:
        self.trained = True
        if not self.console.is_terminal:
            self.lines.started(facts)
            for note in self.notes:
                self.lines.write(plain(note))
            return
        for i, line in enumerate(headline(facts)):
            style = "bold" if i == 0 else "yellow" if line.startswith("warning") else "dim"
            self.console.print(Text(line, style=style))
        for note in self.notes:
            self.console.print(Text(plain(note), style="yellow"))
        self.primary, self.best = facts["primary"], facts["best"]
        self.bar = Bar(
            total=facts["total_steps"],
            initial=facts["step"],
            unit="step",
            file=sys.stderr,
            dynamic_ncols=True,
            smoothing=0.1,
        )

    def event(self, event: dict[str, Any]) -> None:
        if self.bar is None:
            self.lines.event(event)
            return
        if event["split"] == "train":
            self.shown["loss"] = number(event["loss"])
        else:
            value = event[self.primary.metric]
            if self.best is None or self.primary.better(value, self.best):
                self.best = value
            metric = self.primary.metric
            if self.console.width < WIDE:  # the end of the line would be cut off
                self.shown[event["split"]] = amount(metric, value)
            else:
                self.shown[event["split"]] = score(metric, value)
                self.shown["best"] = number(self.best, metric)
        self.bar.set_postfix_str(
            ", ".join(f"{k} {v}" for k, v in self.shown.items()), refresh=False
        )
        self.bar.update(event["step"] - self.bar.n)

    @contextmanager
    def closed_at_the_end(self) -> Iterator[None]:
        """Close the bar however the training ends, at its last step if a signal stopped it."""
        try:
            yield
        except Interrupted as stop:
            if self.bar is not None:
                self.bar.update(stop.step - self.bar.n)
            raise
        finally:
            if self.bar is not None:
                self.bar.close()

    def finished(self, record: Record) -> None:
        if self.bar is not None:
            self.bar.close()
        if not self.trained:
            hint = "--retry runs it again"
            if record.status == "completed":
                resume = resume_command(self.folder).removeprefix("seqbench train ")
                hint = f"--force runs it again, {resume} trainer.steps=N continues it"
            self.console.print(Text(f"this run is over already ({hint})", "dim"), soft_wrap=True)
        if record.score is None:
            return  # the error message is enough
        metric = record.score.metric
        rows = {"reached": f"test {score(metric, record.score.value)}"}
        rows |= {name: score(metric, bound) for name, bound in record.bounds.items()}
        cell = next(filter(None, (published(paper, record) for paper in papers())), None)
        if cell is not None:
            rows["published"] = f"{cell.text} in {cell.row.paper} ({comparability(record, cell)})"
        commands = [["table", *self.place], ["show", record.run_id[:8], *self.place]]
        if self.again:
            commands.insert(0, ["train", *self.again, f"seed={record.seed + 1}"])
        if self.console.is_terminal:
            self.console.print(facts_panel(outcome(record), rows.items()))
        else:
            self.lines.write(outcome(record))
            for name, value in rows.items():
                self.lines.write(f"{name:{WIDTH}}{value}")
        # Do not wrap paths and commands: users copy them.
        below = {"files": [str(self.folder)]}
        below["next"] = [shlex.join(["seqbench", *words]) for words in commands]
        for name, lines in below.items():
            for i, line in enumerate(lines):
                label = (f"{'' if i else name:{WIDTH}}", "dim")
                self.console.print(Text.assemble(label, line), soft_wrap=True)


class OneOfMany(Observer):
    """Observer for runs trained together (`seeds=N`): prints one line when the run ends."""

    def finished(self, record: Record) -> None:
        tqdm.write(f"seed {record.seed}: {outcome(record)}", file=sys.stderr)


class Brief(Observer):
    """Observer for compressed runs without fine-tuning: prints one line when the run ends."""

    def finished(self, record: Record) -> None:
        print(plain(f"{method(record.config)}: {outcome(record)}"), file=sys.stderr)
