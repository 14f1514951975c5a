"""Read from a run's folder how far another process has trained it.

The jobs of every engine write to this folder, so watching them needs no other channel.
"""

import time
from dataclasses import dataclass, field
from typing import Any

from seqbench.runs.events import is_number, last_events
from seqbench.runs.run import Run

# Bytes to read from the end of an event log; they most likely hold an event of each kind.
TAIL_BYTES = 4096


@dataclass
class Progress:
    """The progress of a run as last read from its folder; `look` updates it.

    Attributes:
        run: the run.
        step: step of the last event.
        total_steps: steps of the whole run; `None` before it has started.
        loss: last logged training loss.
        metric: name of the metric that is the score.
        direction: `min` or `max`, whichever score is better.
        score: last validation score.
        speed: steps per second since the first look.
        scored_step: step of `score`.
    """

    run: Run
    step: int = 0
    total_steps: int | None = None
    loss: float | None = None
    metric: str | None = None
    direction: str | None = None
    score: float | None = None
    speed: float | None = None
    scored_step: int = 0
    _first: tuple[float, int] | None = field(default=None, repr=False)

    def look(self) -> "Progress":
        """Read the latest events, update the attributes, and return self."""
        if self.total_steps is None:
            for start in last_events(self.run.history_path):
                self.total_steps = number(start.get("total_steps"), int) or self.total_steps
                if isinstance(metric := start.get("metric"), str):
                    self.metric = metric
                self.direction = start.get("direction") or self.direction
                self.step = number(start.get("step"), int) or 0
        for event in last_events(self.run.events_path, TAIL_BYTES):
            self.step = number(event.get("step"), int) or self.step
            if event.get("split") == "train":
                self.loss = number(event.get("loss"), float)
            elif self.metric is not None:
                self.score = number(event.get(self.metric), float)
                self.scored_step = self.step
        now = time.monotonic()
        if self._first is None or self.step < self._first[1]:
            self._first = now, self.step
        elif self.step > self._first[1]:
            self.speed = (self.step - self._first[1]) / (now - self._first[0])
        return self

    @property
    def seconds_left(self) -> float | None:
        """Return the seconds until the last step at the current `speed`; `None` if unknown."""
        if self.total_steps is None or not self.speed:
            return None
        return (self.total_steps - self.step) / self.speed


def number(value: Any, kind: type[Any]) -> Any:
    """Return `kind(value)` if `value` is a finite number, else `None`: the file is not trusted."""
    return kind(value) if is_number(value) else None
