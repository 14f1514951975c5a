"""How far a run has come that another process trains, read from its folder.

Any engine's jobs write there, and nowhere else: so whoever watches them needs no other channel.
"""

import sys
import time
from dataclasses import dataclass, field
from typing import Any

from seqbench.results.collect import last_events
from seqbench.runs.run import Run

# Bytes at the end of an event log in which there is an event of each kind, most likely.
ROOM = 4096


@dataclass
class Progress:
    """What has been seen of a run so far; `look` looks again.

    Attributes:
        run: the run.
        step: the last step that an event tells of.
        total_steps: of the whole run; `None` before it has started.
        loss: the last one logged.
        metric: name of the score.
        direction: of a better score, `min` or `max`.
        score: the last one on validation.
        speed: steps per second since it was first seen.
    """

    run: Run
    step: int = 0
    total_steps: int | None = None
    loss: float | None = None
    metric: str | None = None
    direction: str | None = None
    score: float | None = None
    speed: float | None = None
    _first: tuple[float, int] | None = field(default=None, repr=False)

    def look(self) -> "Progress":
        """Read what has been written since."""
        if self.total_steps is None:
            for start in last_events(self.run.folder / "history.jsonl"):
                self.total_steps = number(start.get("total_steps"), int) or self.total_steps
                if isinstance(metric := start.get("metric"), str):
                    self.metric = metric
                self.direction = start.get("direction") or self.direction
                self.step = number(start.get("step"), int) or 0
        for event in last_events(self.run.events_path, ROOM):
            self.step = number(event.get("step"), int) or self.step
            if event.get("split") == "train":
                self.loss = number(event.get("loss"), float)
            elif self.metric is not None:
                self.score = number(event.get(self.metric), float)
        now = time.monotonic()
        if self._first is None or self.step < self._first[1]:
            self._first = now, self.step
        elif self.step > self._first[1]:
            self.speed = (self.step - self._first[1]) / (now - self._first[0])
        return self

    @property
    def seconds_left(self) -> float | None:
        """Until the last step, at the speed seen so far."""
        if self.total_steps is None or not self.speed:
            return None
        return (self.total_steps - self.step) / self.speed


def number(value: Any, kind: type[Any]) -> Any:
    """The value if it is a finite number: what stands in a folder anybody may have written."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return kind(value) if abs(value) <= sys.float_info.max else None
