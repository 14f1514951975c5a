"""Define a batch of forecasting windows, and normalize each window by its own look-back."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from seqbench.tasks.task import Batch

Normalize = Literal["none", "last", "window"]


@dataclass(frozen=True)
class ForecastBatch(Batch):
    """A batch of windows.

    Attributes:
        observed: `(batch, horizon, targets)` bool, the targets that are not missing; `None`: all.
        offset: `(batch, 1, targets)`, added to the outputs times `scale`; `None`: 0.
        scale: `(batch, 1, targets)`, positive; `None`: 1.
    """

    observed: Tensor | None = None
    offset: Tensor | None = None
    scale: Tensor | None = None

    def scored_count(self) -> Tensor | int:
        """Return the number of targets that are not missing, at least 1."""
        return self.targets.numel() if self.observed is None else self.observed.sum().clamp(min=1)

    def answer(self, outputs: Tensor) -> Tensor:
        """Return a model's outputs like the targets, with the normalization undone."""
        answer = outputs.float().unflatten(-1, self.targets.shape[1:])
        if self.scale is not None and self.offset is not None:
            answer = answer * self.scale + self.offset
        return answer


def look_backs(series: Tensor, at: Tensor, length: int) -> Tensor:
    """Return the rows up to and with each origin, `(batch, length, dim)`.

    Args:
        series: `(rows, dim)`.
        at: `(batch,)`, the origins.
        length: time steps of the look-back.
    """
    return series[at[:, None] + torch.arange(1 - length, 1, device=at.device)]


def normalized(batch: ForecastBatch, how: Normalize, columns: int, masks: bool) -> ForecastBatch:
    """Normalize each window by its own look-back.

    Args:
        batch: with inputs `(batch, time, dim)`, the targets first.
        how: see `Forecast`.
        columns: number of leading columns with values; what follows stays as it is.
        masks: the columns are followed by as many indicators of missing values.
    """
    if how == "none":
        return batch
    values, targets = batch.inputs[..., :columns], batch.targets.shape[2]
    seen = torch.ones_like(values)
    if masks:
        seen = seen - batch.inputs[..., columns : 2 * columns]
    if how == "last":
        place = torch.arange(values.shape[1], device=values.device)[:, None]
        offset = values.gather(1, (seen * place).argmax(1, keepdim=True))
        scale = torch.ones_like(offset)
    else:
        count = seen.sum(1, keepdim=True).clamp(min=1)
        offset = values.sum(1, keepdim=True) / count
        deviations = (values - offset) * seen
        # A constant window is divided by 0.003 of the standard deviation of train, not by 0.
        scale = (deviations.square().sum(1, keepdim=True) / count + 1e-5).sqrt()
    inputs = torch.cat([(values - offset) / scale * seen, batch.inputs[..., columns:]], -1)
    return replace(batch, inputs=inputs, offset=offset[..., :targets], scale=scale[..., :targets])
