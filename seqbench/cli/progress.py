"""What a person sees while a run trains: a header, one bar, an end panel. All of it on stderr."""

import shlex
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from seqbench.results.papers import like_for_like, published
from seqbench.runs.log import LineLog, headline, outcome
from seqbench.runs.observer import Observer
from seqbench.runs.record import Record
from seqbench.runs.run import Run
from seqbench.wording import number, score


class Terminal(Observer):
    """Shows a run on stderr: a bar where that is a terminal, lines where it is not.

    Args:
        config: of the run.
        again: what the person typed after `seqbench train`, to suggest the next command from.
    """

    def __init__(self, config: dict[str, Any], again: Sequence[str]) -> None:
        self.again = [word for word in again if not word.startswith("seed=")]
        self.console = Console(stderr=True, highlight=False)
        self.folder = Run.of(config).folder
        self.lines = LineLog(lambda line: print(line, file=sys.stderr, flush=True))
        self.bar: tqdm[Any] | None = None
        self.trained = False
        self.shown: dict[str, str] = {}
        self.best: float | None = None

    def started(self, facts: dict[str, Any]) -> None:
        self.trained = True
        if not self.console.is_terminal:
            self.lines.started(facts)
            return
        for i, line in enumerate(headline(facts)):
            style = "bold" if i == 0 else "yellow" if line.startswith("warning") else "dim"
            self.console.print(Text(line, style=style))
        self.primary, self.best = facts["primary"], facts["best"]
        self.bar = tqdm(
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
            self.shown[event["split"]] = score(self.primary.metric, value)
            self.shown["best"] = number(self.best, self.primary.metric)
        self.bar.set_postfix_str(
            ", ".join(f"{k} {v}" for k, v in self.shown.items()), refresh=False
        )
        self.bar.update(event["step"] - self.bar.n)

    def finished(self, record: Record) -> None:
        if self.bar is not None:
            self.bar.close()
        if record.score is None:
            return  # the error line says it all
        if not self.trained:
            self.console.print(Text("this run is finished already (--force runs it again)", "dim"))
        rows = Table.grid(padding=(0, 2))
        rows.add_column(style="dim")
        rows.add_column()
        metric = record.score.metric
        rows.add_row("reached", Text(f"test {score(metric, record.score.value)}", style="bold"))
        rows.add_row("without memory", score(metric, record.baseline))
        if record.optimum is not None:
            rows.add_row("best possible", score(metric, record.optimum))
        cell = published("tcn2018", record.task, record.model)
        if cell is not None:
            reason = like_for_like(record, cell)
            remark = f"not like for like: {reason}" if reason else "like for like"
            rows.add_row("published", f"{score(cell.metric, cell.value)} ({remark})")
        rows.add_row("files", Text(str(self.folder)))
        steps = ["seqbench table", f"seqbench show {record.run_id[:8]}"]
        if self.again:
            words = ["seqbench", "train", *self.again, f"seed={record.seed + 1}"]
            steps.insert(0, shlex.join(words))
        rows.add_row("next", Text("\n".join(steps)))
        panel = Panel(
            Group(rows),
            title=outcome(record),
            title_align="left",
            border_style="green",
            expand=False,
        )
        if self.console.is_terminal:
            self.console.print(panel)
        else:
            self.console.print(outcome(record))
            self.console.print(rows)


class OneOfMany(Observer):
    """Of a run that is trained together with others, one of which is shown: its end."""

    def finished(self, record: Record) -> None:
        tqdm.write(f"seed {record.seed}: {outcome(record)}", file=sys.stderr)
