"""Define `SequenceSpec`, the only interface between a task and a model.

A task has a `SequenceSpec`; a model is built as `Model(spec, **config)` and does not depend on the
task. The spec states the readout, so a model can skip outputs that the loss does not use.
"""

from dataclasses import dataclass
from typing import Any, Literal

Readout = Literal["last", "mean", "every"]


@dataclass(frozen=True)
class Tokens:
    """Token input: int64 of shape `(batch, time)` with values in `[0, vocab_size)`."""

    vocab_size: int


@dataclass(frozen=True)
class Features:
    """Real-valued input: float of shape `(batch, time, dim)`."""

    dim: int


@dataclass(frozen=True)
class Classes:
    """Classification target: one of `n` classes; a model outputs `n` logits."""

    n: int


@dataclass(frozen=True)
class Values:
    """Regression target: `dim` real values; a model outputs `dim` values.

    Attributes:
        dim: number of values.
        steps: for a forecast, the number of later time steps that the values are of, the first step
            first; their columns are the first ones of the input. `None`: not a forecast.
    """

    dim: int
    steps: int | None = None


@dataclass(frozen=True)
class SequenceSpec:
    """The input, target, readout and length of a sequence problem.

    Attributes:
        input: the type and size of the input at each time step.
        target: the type and size of the target.
        readout: `last`: a model outputs `(batch, out)`, after the last step; `mean`: it outputs
            `(batch, out)`, from the mean of its features over the steps; `every`: it outputs
            `(batch, time, out)`, one output per step.
        length: time steps in a training sequence or segment, the longest one.
        variable_length: sequences differ in length; see `Batch.lengths`.
    """

    input: Tokens | Features
    target: Classes | Values
    readout: Readout
    length: int
    variable_length: bool = False

    @property
    def output_dim(self) -> int:
        """Return the size of the last dimension of a model's output."""
        return self.target.n if isinstance(self.target, Classes) else self.target.dim

    def to_json(self) -> dict[str, Any]:
        """Return the spec as a JSON-serializable dict, for `from_json`."""
        return {
            "input": vars(self.input),
            "target": {k: v for k, v in vars(self.target).items() if v is not None},
            "readout": self.readout,
            "length": self.length,
            **({"variable_length": True} if self.variable_length else {}),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "SequenceSpec":
        """Return the spec of a result of `to_json`.

        Raises:
            KeyError, TypeError: if it is not one.
        """
        source, target = values["input"], values["target"]
        return cls(
            Tokens(**source) if "vocab_size" in source else Features(**source),
            Classes(**target) if "n" in target else Values(**target),
            values["readout"],
            values["length"],
            values.get("variable_length", False),
        )
