"""What all trackers have in common."""

from collections.abc import Callable
from typing import Any

from seqbench.runs.observer import Observer
from seqbench.runs.record import Record


class Guarded(Observer):
    """A tracker that cannot fail a run.

    Args:
        name: of the tracker.
        make: makes it; that may fail, too.
        say: takes a line for the person.
    """

    def __init__(self, name: str, make: Callable[[], Observer], say: Callable[[str], None]) -> None:
        self.name, self.make, self.say = name, make, say
        self.tracker: Observer | None = None

    def started(self, facts: dict[str, Any]) -> None:
        def start() -> None:
            self.tracker = self.make()
            self.tracker.started(facts)

        self.attempt(start)

    def event(self, event: dict[str, Any]) -> None:
        if (tracker := self.tracker) is not None:
            self.attempt(lambda: tracker.event(event))

    def finished(self, record: Record) -> None:
        if (tracker := self.tracker) is not None:
            self.attempt(lambda: tracker.finished(record))

    def close(self) -> None:
        if (tracker := self.tracker) is not None:
            self.attempt(tracker.close)

    def attempt(self, action: Callable[[], None]) -> None:
        """Do something; should it fail, the tracker is left alone from then on."""
        try:
            action()
        except Exception as error:  # of any kind: these are large programs of others
            self.tracker = None
            reason = str(error).strip().split("\n")[0]
            self.say(
                f"warning: tracker {self.name} gave up, the run goes on: "
                f"{type(error).__name__}: {reason}"
            )


def scores(record: Record) -> dict[str, float]:
    """Every metric of a record by `split/metric`, as trackers name them."""
    return {
        f"{split}/{name}": value
        for split, metrics in record.metrics.items()
        for name, value in metrics.items()
        if value is not None
    }


def measured(event: dict[str, Any]) -> dict[str, float]:
    """The numbers of an event by `split/metric`."""
    return {
        f"{event['split']}/{name}": value
        for name, value in event.items()
        if name not in ("step", "split") and isinstance(value, int | float)
    }
