"""Log runs to TensorBoard, one folder per run."""

from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from seqbench.runs.observer import Observer
from seqbench.runs.record import Record
from seqbench.runs.run import Run
from seqbench.trackers.tracker import measured, scores


class TensorBoard(Observer):
    """A tracker that writes event files for `tensorboard --logdir FOLDER`.

    Args:
        folder: parent of the runs' folders, `<task>/<model>/<run_id>`.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def started(self, facts: dict[str, Any]) -> None:
        run = Run.of(facts["config"]).folder
        # A resumed run repeats the steps after its last checkpoint: purge their old events.
        self.writer = SummaryWriter(
            str(Path(self.folder).joinpath(*run.parts[-3:])), purge_step=facts["step"] + 1
        )

    def event(self, event: dict[str, Any]) -> None:
        for name, value in measured(event).items():
            self.writer.add_scalar(name, value, event["step"])

    def finished(self, record: Record) -> None:
        for name, value in scores(record).items():
            self.writer.add_scalar(f"final/{name}", value, record.steps)

    def close(self) -> None:
        self.writer.close()
