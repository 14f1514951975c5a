"""What passes between a task and a model: the form of a sequence problem, and nothing else.

A task states its `SequenceSpec`; a model is built as `Model(spec, **config)` and need not know
which task it is trained on. Because the spec names the readout, a model may skip every time step
that nobody reads.
"""

from dataclasses import dataclass
from typing import Literal

Readout = Literal["last", "every"]


@dataclass(frozen=True)
class Tokens:
    """Input of symbols: int64 of shape `(batch, time)` with values in `[0, vocab_size)`."""

    vocab_size: int


@dataclass(frozen=True)
class Features:
    """Input of real vectors: float of shape `(batch, time, dim)`."""

    dim: int


@dataclass(frozen=True)
class Classes:
    """Target of one of `n` classes; a model answers with `n` logits."""

    n: int


@dataclass(frozen=True)
class Values:
    """Target of `dim` real values; a model answers with `dim` numbers."""

    dim: int


@dataclass(frozen=True)
class SequenceSpec:
    """The form of a sequence problem.

    Attributes:
        input: what a model reads at each time step.
        target: what it answers.
        readout: `last` asks for one answer after the last step, `(batch, out)`; `every` asks for
            one at each step, `(batch, time, out)`.
        length: number of time steps in a training sequence or segment.
    """

    input: Tokens | Features
    target: Classes | Values
    readout: Readout
    length: int

    @property
    def output_dim(self) -> int:
        """Size of the last dimension of a model's output."""
        return self.target.n if isinstance(self.target, Classes) else self.target.dim
