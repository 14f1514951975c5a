"""Define `SequenceSpec`, the only interface between a task and a model.

A task has a `SequenceSpec`; a model is built as `Model(spec, **config)` and does not depend on the
task. The spec states the readout, so a model can skip outputs that the loss does not use.
"""

from dataclasses import dataclass
from typing import Literal

Readout = Literal["last", "every"]


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
    """Regression target: `dim` real values; a model outputs `dim` values."""

    dim: int


@dataclass(frozen=True)
class SequenceSpec:
    """The input, target, readout and length of a sequence problem.

    Attributes:
        input: the type and size of the input at each time step.
        target: the type and size of the target.
        readout: `last`: a model outputs `(batch, out)`, after the last step; `every`: it outputs
            `(batch, time, out)`, one output per step.
        length: time steps in a training sequence or segment.
    """

    input: Tokens | Features
    target: Classes | Values
    readout: Readout
    length: int

    @property
    def output_dim(self) -> int:
        """Return the size of the last dimension of a model's output."""
        return self.target.n if isinstance(self.target, Classes) else self.target.dim
