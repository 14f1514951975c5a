"""Linear forecasting models: NLinear and DLinear (Zeng et al. 2023, section 4).

Both map the look-back of each target column to its horizon, with weights that all columns share.
Other input columns are not read.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqbench.errors import ConfigError
from seqbench.models.sequence_model import SequenceModel, State
from seqbench.spec import Features, SequenceSpec, Values


class LinearForecast(SequenceModel):
    """Base class of the linear forecasting models.

    Args:
        spec: of a forecasting task: features in, values of later time steps out, readout `last`.
            The targets are the first columns of the input.

    Raises:
        ConfigError: if the task is of another kind.
    """

    def __init__(self, spec: SequenceSpec) -> None:
        super().__init__()
        steps = spec.target.steps if isinstance(spec.target, Values) else None
        if not isinstance(spec.input, Features) or steps is None or spec.readout != "last":
            name = type(self).__name__
            raise ConfigError(f"{name} is for forecasting tasks only, such as task=forecast_file")
        self.length, self.steps = spec.length, steps
        self.targets = spec.output_dim // steps

    def forward(self, x: Tensor, state: State = None, context: int = 0) -> tuple[Tensor, State]:
        """Map `(batch, time, dim)` to `(batch, steps * targets)`, the first step first.

        A sequence that is shorter than in training is padded on the left with its first values.
        """
        series = x[:, -self.length :, : self.targets].transpose(1, 2)
        missing = self.length - series.shape[2]
        if missing:
            series = torch.cat([series[..., :1].expand(-1, -1, missing), series], 2)
        return self.forecast(series).transpose(1, 2).flatten(1), None

    def forecast(self, series: Tensor) -> Tensor:
        """Map `(batch, targets, length)` to `(batch, targets, steps)`."""
        raise NotImplementedError


class NLinear(LinearForecast):
    """A linear layer on the look-back minus its last value, which is added to the answer.

    Args:
        spec: as for `LinearForecast`.
    """

    def __init__(self, spec: SequenceSpec) -> None:
        super().__init__(spec)
        self.linear = nn.Linear(self.length, self.steps)

    def forecast(self, series: Tensor) -> Tensor:
        last = series[..., -1:]
        return self.linear(series - last) + last


class DLinear(LinearForecast):
    """A linear layer on a moving average of the look-back, and one on the remainder.

    Args:
        spec: as for `LinearForecast`.
        kernel_size: time steps of the moving average, odd.

    Raises:
        ConfigError: as for `LinearForecast`, or if `kernel_size` is not odd and positive.
    """

    def __init__(self, spec: SequenceSpec, kernel_size: int) -> None:
        super().__init__(spec)
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ConfigError(f"model.kernel_size must be odd and positive, not {kernel_size}")
        self.kernel_size = kernel_size
        self.remainder = nn.Linear(self.length, self.steps)
        self.trend = nn.Linear(self.length, self.steps)

    def forecast(self, series: Tensor) -> Tensor:
        reach = self.kernel_size // 2
        padded = F.pad(series, (reach, reach), mode="replicate")
        trend = F.avg_pool1d(padded, self.kernel_size, stride=1)
        return self.remainder(series - trend) + self.trend(trend)
