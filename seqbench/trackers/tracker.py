"""Guard trackers against errors, and name metrics the same way for all of them."""

from collections.abc import Callable
from typing import Any

from seqbench.runs.observer import Observer
from seqbench.runs.record import Record


class Guarded(Observer):
    """A wrapper around a tracker that keeps its errors from failing the run.

    Args:
        name: tracker name, for the warning.
        make: builds the tracker; may raise.
        say: takes one line of text for the user.
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
        """Call `action`; if it raises, warn once and disable the tracker."""
        try:
            action()
        except Exception as error:  # third-party trackers may raise anything
            self.tracker = None
            reason = str(error).strip().split("\n")[0]
            self.say(
                f"warning: tracker {self.name} gave up, the run goes on: "
                f"{type(error).__name__}: {reason}"
            )


def scores(record: Record) -> dict[str, float]:
    """Return the metrics of a record that are not `None`, as `split/metric` -> value."""
    return {
        f"{split}/{name}": value
        for split, metrics in record.metrics.items()
        for name, value in metrics.items()
        if value is not None
    }


def measured(event: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of an event, without its step, as `split/metric` -> value."""
    return {
        f"{event['split']}/{name}": value
        for name, value in event.items()
        if name not in ("step", "split") and isinstance(value, int | float)
    }
