"""Observe the outputs of an evaluation: each prediction as a row of a table, and their counts."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqbench.errors import ConfigError
from seqbench.runs.confusion import MOST_CLASSES, ConfusionMatrix
from seqbench.spec import Classes
from seqbench.tasks.task import Batch, Task

# The columns of a part of a table, all of the same length.
Columns = dict[str, NDArray[Any]]


def unused(name: str, taken: Iterable[str]) -> str:
    """Return a name for a column, with `_` added while it is taken, in upper or lower case."""
    others = {other.casefold() for other in taken}
    while name.casefold() in others:
        name += "_"
    return name


class PredictionRows:
    """Turns the outputs of `Trainer.evaluate`, as its `observe`, into rows of a table.

    For readouts `last` and `mean` a row is an example, with its `index` from 0 in the order of the
    data. For `every` a row is a scored step, with its `example` and its `step`, both from 0.
    Segments that continue each other are one example. `target` and `prediction` follow; if they are
    more than one value, as `target_0`, `target_1` and so on. For classes, `probability` is that of
    the prediction.

    Args:
        task: gives the batches.
        write: receives the columns of each batch.
        names: the name of each class, written in place of its number; empty: none.
    """

    def __init__(
        self, task: Task, write: Callable[[Columns], None], names: Sequence[str] = ()
    ) -> None:
        self.task = task
        self.write = write
        self.names = np.array(list(names), dtype=object)
        # The number of the batch's first example, its examples, and the steps until its end.
        self.first = self.size = self.end = 0

    def __call__(self, outputs: Tensor, batch: Batch, given: Batch) -> None:
        """Write the rows of a batch.

        Raises:
            ConfigError: if the task's targets do not fit its outputs.
        """
        if given.fresh:
            self.first, self.size, self.end = self.first + self.size, len(given.inputs), 0
        self.end += given.inputs.shape[1] - (0 if given.fresh else given.context)
        outputs, targets = fitting(self.task, outputs, batch)
        examples = torch.arange(self.first, self.first + self.size, device=outputs.device)
        places = {"index": examples}
        if self.task.spec.readout == "every":
            steps = torch.arange(self.end - outputs.shape[1], self.end, device=outputs.device)
            scored = batch.scored
            if scored is None:
                scored = outputs.new_ones(outputs.shape[:2], dtype=torch.bool)
            places = {
                "example": examples[:, None].expand_as(scored)[scored],
                "step": steps.expand_as(scored)[scored],
            }
            outputs, targets = outputs[scored], targets[scored]
        columns = {name: value.cpu().numpy() for name, value in places.items()}
        self.write(columns | self.answers(outputs, targets))

    def answers(self, outputs: Tensor, targets: Tensor) -> Columns:
        """Return the columns of targets and predictions.

        Args:
            outputs: `(rows, out)`.
            targets: `(rows,)` or `(rows, values)`.
        """
        if isinstance(self.task.spec.target, Classes):
            chosen = outputs.argmax(-1)
            probability = outputs.softmax(-1).gather(-1, chosen[:, None])[:, 0]
            columns = {
                "target": targets.long().cpu().numpy(),
                "prediction": chosen.cpu().numpy(),
            }
            if len(self.names):
                columns = {name: self.names[ids] for name, ids in columns.items()}
            return columns | {"probability": probability.cpu().numpy()}
        return numbered("target", targets) | numbered("prediction", outputs)


def numbered(name: str, values: Tensor) -> Columns:
    """Return `(rows,)` or `(rows, values)` as columns, numbered if there are several."""
    columns = values.reshape(len(values), -1).float().cpu().numpy().T
    if len(columns) == 1:
        return {name: columns[0]}
    return {f"{name}_{i}": column for i, column in enumerate(columns)}


class ConfusionCount:
    """Counts predicted classes by true class, as the `observe` of `Trainer.evaluate`.

    Args:
        task: its target are classes, one per example.
    """

    def __init__(self, task: Task) -> None:
        assert isinstance(task.spec.target, Classes)
        self.task = task
        self.classes = task.spec.target.n
        self.counts = torch.zeros(self.classes**2, dtype=torch.int64)

    def __call__(self, outputs: Tensor, batch: Batch, given: Batch) -> None:
        """Add a batch; a target that is no class, such as -100 or a soft label, does not count."""
        with suppress(ConfigError):
            outputs, targets = fitting(self.task, outputs, batch)
            pairs = targets.long() * self.classes + outputs.argmax(-1)
            pairs = pairs[(targets >= 0) & (targets < self.classes)]
            self.counts += torch.bincount(pairs, minlength=self.classes**2).cpu()

    @property
    def matrix(self) -> ConfusionMatrix | None:
        """The counts so far; `None` before the first."""
        if not self.counts.any():
            return None
        names = self.task.preprocessing().get("classes", [])
        names = names if len(names) == self.classes else []
        return ConfusionMatrix(self.counts.view(self.classes, -1).tolist(), names)


def has_confusion(task: Task) -> bool:
    """Return True if a task has one class per example, of few enough classes for a matrix."""
    target = task.spec.target
    return isinstance(target, Classes) and target.n <= MOST_CLASSES and task.spec.readout != "every"


def fitting(task: Task, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the outputs of a batch in float32 and the targets of the same places.

    Raises:
        ConfigError: if they do not fit.
    """
    outputs, targets = task.scored_part(outputs.float(), batch)
    is_class = isinstance(task.spec.target, Classes)
    places = 2 if task.spec.readout == "every" else 1
    fits = targets.shape[:places] == outputs.shape[:places]
    if not fits or (is_class and (targets.ndim != places or targets.is_floating_point())):
        raise ConfigError(
            f"{type(task).__name__}.scored_part must return outputs and targets of the same "
            f"places, got shapes {tuple(outputs.shape)} and {tuple(targets.shape)}"
        )
    return outputs, targets
