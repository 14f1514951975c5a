"""Weight the losses of micro-batches, so that their gradients add up to that of the batch."""

from dataclasses import replace

import torch
from torch import Tensor

from seqbench.errors import ConfigError
from seqbench.tasks.task import Batch, Task


def share(part: Batch, batch: Batch) -> Tensor | float:
    """Return the share of a batch's scored positions that are in a micro-batch."""
    if len(part.inputs) == len(batch.inputs):
        return 1.0
    return part.scored_count() / batch.scored_count()


def never_empty(part: Batch) -> Batch:
    """Return a micro-batch with all positions scored if none was.

    Its share of the loss is 0. The mean over no position would be NaN, and 0 * NaN is NaN.
    """
    if part.scored is None:
        return part
    return replace(part, scored=part.scored | ~part.scored.any())


@torch.no_grad()
def check_accumulation(task: Task, batch: Batch, parts: int) -> None:
    """Check on random outputs that the loss of a batch is the weighted sum of its micro-batches'.

    Raises:
        ConfigError: if it is not: a task may mask positions in its loss that `Batch.scored` does
            not name, and accumulated gradients would silently differ from those of the batch.
    """
    shape = batch.inputs.shape[: 2 if task.spec.readout == "every" else 1]
    random = torch.Generator().manual_seed(0)
    outputs = torch.randn(*shape, task.spec.output_dim, generator=random).to(batch.inputs.device)
    whole = task.loss(outputs, batch)
    parted = batch.split(parts)
    pieces = zip(outputs.split([len(part.inputs) for part in parted]), parted, strict=True)
    total = sum(task.loss(y, never_empty(part)) * share(part, batch) for y, part in pieces)
    if not torch.allclose(torch.as_tensor(total), whole, rtol=1e-4, atol=1e-6):
        raise ConfigError(
            f"trainer.accumulate={parts} would change the loss from {whole:.6g} to {total:.6g}: "
            "the task's loss must be the mean over the positions in Batch.scored"
        )
