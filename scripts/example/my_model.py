"""Define a custom model, which is built as `Model(spec, **config)`."""

import torch
from torch import Tensor, nn

from seqbench.models.embedding import input_layer
from seqbench.spec import SequenceSpec


class RunningMean(nn.Module):
    """Answers from the mean of all that it has read."""

    def __init__(self, spec: SequenceSpec, hidden_size: int) -> None:
        super().__init__()
        self.readout = spec.readout
        self.input = input_layer(spec, hidden_size)
        self.output = nn.Linear(hidden_size, spec.output_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, time)` or `(batch, time, dim)` to `(batch, out)` or `(batch, time, out)`."""
        total = torch.relu(self.input(x)).cumsum(1)
        y: Tensor = self.output(total / torch.arange(1, x.shape[1] + 1, device=x.device)[:, None])
        return y[:, -1] if self.readout == "last" else y
