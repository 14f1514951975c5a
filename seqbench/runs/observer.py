"""Define the observers of a run, such as log and tracker; they do not change the run."""

from typing import Any

from seqbench.runs.record import Record


class Observer:
    """The base class of observers: its methods do nothing, and subclasses override them."""

    def started(self, facts: dict[str, Any]) -> None:
        """Handle the start of training; `facts` describes the run (see `Experiment.facts`)."""

    def event(self, event: dict[str, Any]) -> None:
        """Handle measured metrics, such as `{"step": 400, "split": "valid", "mse": ...}`."""

    def finished(self, record: Record) -> None:
        """Handle the end of the run."""

    def close(self) -> None:
        """Release resources; called last, however the run ended."""


class Observers(Observer):
    """An observer that passes each call on to several observers."""

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
