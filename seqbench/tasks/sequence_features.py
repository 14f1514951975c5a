"""Turn labelled sequences into what a classifier reads. What is fitted to the training sequences is
kept with the weights, so prediction shares this.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqbench.datasets.labelled import Labelled, numbered_channels
from seqbench.spec import Features, Tokens
from seqbench.wording import plain

Missing = Literal["error", "mask"]
# Time steps of a batch in evaluation, padding included.
EVAL_STEPS = 2**17
EVAL_ROWS = 256


class ClassifierFeatures(Protocol):
    """Preprocessing of a classifier, which is kept with the weights to read new data."""

    @property
    def classes(self) -> list[str]:
        """Return the names of the classes, in the order of the model's outputs."""

    @property
    def input(self) -> Tokens | Features:
        """Return the input of the models."""

    @property
    def notes(self) -> dict[str, int | float | str]:
        """Return facts for the record."""

    def to_json(self) -> dict[str, Any]:
        """Return the features as a JSON-serializable dict."""


@dataclass(frozen=True, eq=False)
class SequenceFeatures:
    """Features of the time steps of labelled sequences: each channel, scaled, and if `masks`, an
    indicator of missing values for each.

    Attributes:
        id, time, label: columns of a table, see `labelled.read_labelled`.
        file_channels: number of channels of the training file.
        channels: names of those that the model reads.
        classes: names of the classes, in the order of the model's outputs.
        masks: missing values are allowed.
        mean: `(channels,)`, of the training sequences.
        std: `(channels,)`, positive.
    """

    id: str
    time: str | None
    label: str
    file_channels: int
    channels: list[str]
    classes: list[str]
    masks: bool
    mean: NDArray[np.float64]
    std: NDArray[np.float64]

    @property
    def input(self) -> Features:
        """Return the input of the models."""
        return Features(len(self.channels) * (2 if self.masks else 1))

    @property
    def notes(self) -> dict[str, int | float | str]:
        """Return facts for the record: the number of channels, or their names."""
        names = self.channels
        unnamed = tuple(names) == numbered_channels(len(names))
        return {"channels": len(names) if unnamed else ", ".join(map(plain, names))}

    def to_json(self) -> dict[str, Any]:
        """Return the attributes as a JSON-serializable dict, for `from_json`."""
        return asdict(self) | {"mean": self.mean.tolist(), "std": self.std.tolist()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "SequenceFeatures":
        """Return the features of a result of `to_json`.

        Raises:
            KeyError, TypeError, ValueError: if it is not one.
        """
        scaler = {name: np.array(values[name], np.float64) for name in ("mean", "std")}
        return cls(**values | scaler)

    def of(self, data: Labelled) -> "Sequences":
        """Return the features of sequences that have the channels, in this order."""
        steps = self.model_inputs(data.values)
        return Sequences(torch.from_numpy(steps), torch.from_numpy(data.lengths))

    def model_inputs(self, values: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return the features `(..., dim)` of values `(..., channels)`, NaN where missing."""
        scaled = (values - self.mean) / self.std
        parts = [np.nan_to_num(scaled).astype(np.float32)]
        if self.masks:
            parts.append(np.isnan(scaled).astype(np.float32))
        return np.concatenate(parts, -1)


@dataclass(frozen=True, eq=False)
class Sequences:
    """Sequences in one tensor, from which batches are cut.

    Attributes:
        steps: `(steps, dim)` float32, or `(steps,)` token ids of any integer type, of one sequence
            after the other.
        lengths: `(sequences,)` int64.
    """

    steps: Tensor
    lengths: Tensor

    def to(self, device: torch.device) -> "Sequences":
        """Return the sequences on a device; the lengths stay on the CPU, where batches are made."""
        return Sequences(self.steps.to(device), self.lengths)

    def padded(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return some sequences as a batch.

        Args:
            rows: `(batch,)`, their places, on the CPU.

        Returns:
            Inputs `(batch, time, dim)`, or `(batch, time)` int64, 0 where a sequence is padded on
            the right to the longest; and the lengths `(batch,)`, `None` if all are of the same
            length.
        """
        device, own = self.steps.device, self.lengths[rows]
        longest = int(own.max())
        starts = (self.lengths.cumsum(0) - self.lengths)[rows].to(device)
        places = torch.arange(longest, device=device)
        if int(own.min()) == longest:
            return self.inputs_at(starts[:, None] + places), None
        lengths = own.to(device)
        inside = places < lengths[:, None]
        # Padding repeats the first step of the sequence, which is then overwritten.
        inputs = self.inputs_at(starts[:, None] + places * inside)
        return inputs * (inside[..., None] if inputs.ndim > 2 else inside), lengths

    def inputs_at(self, places: Tensor) -> Tensor:
        """Return the steps at some places, token ids as int64."""
        steps = self.steps[places]
        return steps if steps.is_floating_point() else steps.long()

    def parts(self, rows: Tensor) -> list[Tensor]:
        """Return rows in parts that fit into memory as batches, in the same order."""
        longest = int(self.lengths[rows].max())
        return list(rows.split(max(1, min(EVAL_ROWS, EVAL_STEPS // longest))))
