"""Guard trackers against errors, and name metrics the same way for all of them."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from seqbench.errors import typed_line
from seqbench.runs.observer import Observer
from seqbench.runs.record import Record
from seqbench.training.interruption import STOP, WARNINGS


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
        """Call `action`; if it raises, warn once and disable the tracker.

        Third-party trackers may raise anything, even KeyboardInterrupt or SystemExit. These end the
        run only if a signal caused them.
        """
        with noted_signals() as received:
            try:
                action()
            except BaseException as error:
                if received and not isinstance(error, Exception):
                    raise
                self.tracker = None
                self.say(
                    f"warning: tracker {self.name} disabled, the run continues: {typed_line(error)}"
                )


@contextmanager
def noted_signals() -> Iterator[list[int]]:
    """Yield a list to which the signals that stop a run are added; their handlers are called."""
    received: list[int] = []
    handlers: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # other threads get no signals
        handlers = {number: signal.getsignal(number) for number in (*STOP, *WARNINGS)}
        handlers = {number: handler for number, handler in handlers.items() if callable(handler)}

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        handlers[number](number, frame)

    for number in handlers:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


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
