"""Turn the rows of a table into what a forecasting model reads, and its answers into their unit.

Training and prediction share this. What is fitted to the training rows is kept with the weights.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqbench.datasets.table import Table
from seqbench.errors import DataError
from seqbench.tasks.calendar_features import calendar_features
from seqbench.tasks.window_batch import ForecastBatch, Normalize, normalized


@dataclass(frozen=True, eq=False)
class TableFeatures:
    """Features of the rows of a table.

    Those of a row are the scaled columns, an indicator of missing values for each of them if
    `masks`, the columns known ahead as they are `horizon` rows later, and calendar features.

    Attributes:
        time: name of the time column; `None`: the table has no times.
        group: name of the column that names a row's series; `None`: one series.
        time_step: of the training rows, see `time_steps.nominal`; `None`: not known.
        columns: names of the columns that the model reads, the targets first.
        targets: names of the columns that it forecasts.
        known: names of the columns known ahead.
        calendar: names of calendar features.
        horizon: time steps ahead.
        normalize: see `Forecast`.
        masks: missing values are allowed.
        mean: `(columns,)`, of the training rows.
        std: `(columns,)`, positive.
        utc: the times are in UTC.
    """

    time: str | None
    group: str | None
    time_step: int | None
    columns: list[str]
    targets: list[str]
    known: list[str]
    calendar: list[str]
    horizon: int
    normalize: Normalize
    masks: bool
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    utc: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the attributes as a JSON-serializable dict, for `from_json`."""
        return asdict(self) | {"mean": self.mean.tolist(), "std": self.std.tolist()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "TableFeatures":
        """Return the features of a result of `to_json`.

        Raises:
            KeyError, TypeError, ValueError: if it is not one.
        """
        scaler = {name: np.array(values[name], np.float64) for name in ("mean", "std")}
        return cls(**values | scaler)

    def indices(self, table: Table, *, known: bool | None = None) -> list[int]:
        """Return the places of the columns in a table: of all, of those known ahead, or the others.

        Args:
            table: has all columns.
            known: True: those known ahead; False: the others; `None`: all.
        """
        chosen = [c for c in self.columns if known is None or (c in self.known) is known]
        return [table.columns.index(name) for name in chosen]

    def scaled(self, table: Table) -> NDArray[np.float64]:
        """Return the scaled columns of a table, `(rows, columns)`."""
        values = table.values[:, self.indices(table)]
        values -= self.mean
        values /= self.std
        return values

    def model_inputs(self, scaled: NDArray[np.float64], table: Table) -> Tensor:
        """Return what the model reads at each row, `(rows, dim)` float32.

        In the last `horizon` rows of a series, columns known ahead are as in that row itself. No
        window reads them there.

        Args:
            scaled: the columns as `scaled` returns them.
            table: gives series and times.
        """
        parts = [np.nan_to_num(scaled).astype(np.float32)]
        if self.masks:
            parts.append(np.isnan(scaled).astype(np.float32))
        for name in self.known:
            ahead = parts[0][:, self.columns.index(name)].copy()
            for own in table.series.values():
                ahead[own][: -self.horizon] = ahead[own][self.horizon :].copy()
            parts.append(ahead[:, None])
        if self.calendar:
            assert table.time is not None
            parts.append(calendar_features(table.time, self.calendar))
        return torch.from_numpy(np.concatenate(parts, 1))

    def normalized(self, batch: ForecastBatch) -> ForecastBatch:
        """Return a batch of windows of the features, each normalized by its own look-back."""
        return normalized(batch, self.normalize, len(self.columns), self.masks)

    def original(self, answer: Tensor) -> NDArray[np.float64]:
        """Return scaled values of the targets, `(..., targets)`, in their unit.

        They are rounded to digits that float32 holds: a millionth of the standard deviation.
        """
        count = len(self.targets)
        mean, std = self.mean[:count], self.std[:count]
        values = answer.cpu().double().numpy() * std + mean
        for i, digits in enumerate((6 - np.floor(np.log10(std))).astype(int).tolist()):
            values[..., i] = values[..., i].round(digits)
        return values


def fit_scaler(
    values: NDArray[np.float64], rows: Iterable[slice], targets: list[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation (ddof 0) of each column, of the training rows alone.

    Args:
        values: `(rows, columns)`, the targets first; NaN where missing.
        rows: the training rows of each series.
        targets: names of the targets.

    Raises:
        DataError: if a target has no value there.
    """
    fitted = np.concatenate([values[own] for own in rows])
    seen = ~np.isnan(fitted)
    count = seen.sum(0)
    for name, found in zip(targets, count, strict=False):
        if not found:
            raise DataError(f"no training row has a value of the target {name}")
    mean = np.nansum(fitted, 0) / np.maximum(count, 1)
    deviations = np.where(seen, fitted - mean, 0)
    std = np.sqrt((deviations**2).sum(0) / np.maximum(count, 1))
    # The rounding errors of a constant column are not to be scaled up.
    return mean, np.where(std > 1e-9 * np.abs(mean), std, 1.0)
