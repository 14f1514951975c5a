"""Write a run's progress as lines of text, for its log file and for output without a terminal."""

import time
from collections.abc import Callable
from typing import Any

from seqbench.runs.observer import Observer
from seqbench.runs.record import Record, bounds
from seqbench.wording import duration, number, score


class LineLog(Observer):
    """An observer that writes a line at each evaluation.

    Args:
        write: called with each line, without its newline.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self.write = write
        self.loss: float | None = None
        self.best: float | None = None
        self.total_steps = 0
        self.first_step = 0
        self.begin = 0.0

    def started(self, facts: dict[str, Any]) -> None:
        self.primary, self.total_steps = facts["primary"], facts["total_steps"]
        self.best = facts["best"]
        self.first_step, self.begin = facts["step"], time.perf_counter()
        for line in headline(facts):
            self.write(line)

    def event(self, event: dict[str, Any]) -> None:
        if event["split"] == "train":
            self.loss = event["loss"]
            return
        value, step = event[self.primary.metric], event["step"]
        best = ""
        if event["split"] == "valid":  # test selects nothing
            if self.best is None or self.primary.better(value, self.best):
                self.best = value
            best = f"best {number(self.best, self.primary.metric)}  "
        speed = (step - self.first_step) / (time.perf_counter() - self.begin)
        left = duration((self.total_steps - step) / speed) if speed else "?"
        self.write(
            f"step {step}/{self.total_steps}  loss {number(self.loss)}  "
            f"{event['split']} {score(self.primary.metric, value)}  {best}"
            f"{speed:.1f} steps/s  {left} left"
        )

    def finished(self, record: Record) -> None:
        self.write(outcome(record))


def headline(facts: dict[str, Any]) -> list[str]:
    """Return lines that describe a run before it trains; `facts` as in `Observer.started`."""
    choices, primary = facts["config"]["choices"], facts["primary"]
    seeds = f"seed {facts['config']['seed']}"
    if facts["together"] > 1:
        seeds += f", one of {facts['together']} trained as one model"
    lines = [
        f"{choices['model']} on {choices['task']}, length {facts['length']}, "
        f"budget {facts['config']['budget']}, {seeds}: "
        f"{facts['parameters']:,} parameters, {facts['total_steps']:,} steps on {facts['device']}",
    ]
    known = bounds(facts["baseline"], facts["naive"], facts["optimum"])
    lines.append("; ".join(f"{name}: {score(primary.metric, v)}" for name, v in known.items()))
    field = facts["receptive_field"]
    if field is not None:
        lines.append(f"receptive field {field:,} steps, sequences of {facts['sequence']:,}")
        if field < facts["sequence"]:
            lines.append(
                "warning: the receptive field is shorter than the sequence: the model cannot see "
                "its beginning; more levels or a larger model.kernel_size would"
            )
    for name, value in facts["notes"].items():
        text = number(value, digits=4) if isinstance(value, float) else value
        lines.append(f"note: {name.replace('_', ' ')} {text}")
    lines += facts["initial"]
    if facts["remark"]:
        lines.append(f"warning: {facts['remark']}")
    if facts["continues"]:
        lines.append(f"continues run {facts['continues']} from step {facts['step']:,}")
    elif facts["step"]:
        lines.append(f"resumed from the checkpoint at step {facts['step']:,}")
    return lines


def outcome(record: Record) -> str:
    """Return a line that says how a run ended."""
    if record.status == "diverged":
        return str(record.error)
    if record.score is None:
        return f"{record.status}: {record.error}"
    took = duration(record.measured.get("seconds"))
    return (
        f"completed: test {score(record.score.metric, record.score.value)} after {took} of training"
    )
