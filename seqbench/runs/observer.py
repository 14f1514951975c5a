"""Who watches a run: a terminal, a log file, a tracker. Watching never changes the run."""

from typing import Any

from seqbench.runs.record import Record


class Observer:
    """Told what happens in a run; does nothing with it. Subclasses override what they care for."""

    def started(self, facts: dict[str, Any]) -> None:
        """The run is about to train; `facts` says what (see `experiment.run`)."""

    def event(self, event: dict[str, Any]) -> None:
        """Metrics were measured: `{"step": 400, "split": "valid", "mse": ...}`."""

    def finished(self, record: Record) -> None:
        """The run is over, and this is its record."""

    def close(self) -> None:
        """Nothing more will come, however it ended."""


class Observers(Observer):
    """Several observers as one."""

    def __init__(self, *observers: Observer) -> None:
        self.observers = observers

    def started(self, facts: dict[str, Any]) -> None:
        for observer in self.observers:
            observer.started(facts)

    def event(self, event: dict[str, Any]) -> None:
        for observer in self.observers:
            observer.event(event)

    def finished(self, record: Record) -> None:
        for observer in self.observers:
            observer.finished(record)

    def close(self) -> None:
        for observer in self.observers:
            observer.close()
