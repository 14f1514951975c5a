"""One update of the weights, for the trainer and for seeds that are trained together."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from seqbench.tasks.task import Batch
from seqbench.training.carried import Carried

Gradients = TypeVar("Gradients")


class StepResult(NamedTuple):
    """The result of a training step.

    Attributes:
        loss: mean over the batch; `(seeds,)` where several are trained together.
        grad_norm: gradient norm before clipping, a scalar or `(seeds,)`; `None` without clipping.
        tokens: time steps that the model read, over all sequences.
        carried: the model's state at the end of the batch.
    """

    loss: Tensor
    grad_norm: Tensor | None
    tokens: int
    carried: Carried


Step = Callable[[Sequence[Batch], Carried], StepResult]


def train_step(
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    backward: Callable[[], Gradients],
    clip: Callable[[], Tensor] | None,
) -> tuple[Gradients, Tensor | None]:
    """Compute gradients, clip them, update the weights, and clear the gradients.

    Args:
        optimizer: updates the weights.
        scaler: the loss scale of fp16; disabled otherwise.
        backward: adds the scaled gradients to the parameters.
        clip: clips the gradients and returns their norm before; `None` for no clipping.

    Returns:
        The results of `backward` and of `clip`.
    """
    result, norm = backward(), None
    if clip is not None:
        scaler.unscale_(optimizer)
        norm = clip()
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()
    return result, norm
