"""Define `Training`: a run in training, with its outputs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqbench.runs.events import EventLog
from seqbench.runs.observer import Observer
from seqbench.tasks.task import Task
from seqbench.training import checkpoint
from seqbench.training.state import TrainingState
from seqbench.training.stored import Kind


@dataclass
class Training:
    """A run in training, with its outputs.

    Attributes:
        state: is changed by training.
        task: on the model's device.
        events: receives the metrics.
        folder: receives the checkpoints.
        observer: receives every event.
        kind: how the best weights are stored; `None`: as they are.
    """

    state: TrainingState
    task: Task
    events: EventLog
    folder: Path
    observer: Observer
    kind: Kind | None = None

    def record(self, event: dict[str, Any]) -> None:
        """Write an event to the log, and pass it to the observer."""
        self.events.append(event)
        self.observer.event(event)

    def save(self) -> bool:
        """Save a checkpoint from which the run can be resumed, unless weights are not finite.

        Such weights end the run when its loss is read next; until then the last checkpoint stays.

        Returns:
            True if a checkpoint was written.
        """
        if not all(bool(p.isfinite().all()) for p in self.state.model.parameters()):
            return False
        self.events.sync()  # a checkpoint refers to the events before it
        checkpoint.keep_previous(self.folder)
        self.state.save(self.folder / checkpoint.LAST, self.events.offset)
        return True
