"""Define `SequenceModel`, the calling convention of models, and adapt plain modules to it."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from seqbench.errors import ConfigError
from seqbench.models.units import Units
from seqbench.spec import Readout, SequenceSpec

# Nested tuples of tensors (batch, ...), or None before the first time step.
State = Any


class SequenceModel(nn.Module):
    """Base class of sequence models.

    The attributes declare what a model can do. Their defaults are those of a model that reads each
    sequence as a whole, without a state.

    Attributes:
        has_state: `forward` returns a state; given to the next call, it continues the sequence.
        carry_state: the trainer passes the state of a segment of a text to the next segment, in
            training and evaluation. Needs `has_state`.
        skips_context: `forward` takes a `context` above 0 and leaves out the outputs of these
            steps. Excludes `has_state`: a state makes the context needless.
        takes_lengths: `forward` has a fourth argument `lengths`, and the model knows the readout
            `mean`. A model without it reads the sequences of a batch one length after the other.
        receptive_field: number of time steps that an output depends on; `None`: unlimited.
        evaluation_options: arguments of the constructor that the weights do not depend on, and
            that `seqbench eval RUN model.KEY=VALUE` may change.
    """

    has_state: bool = False
    carry_state: bool = False
    skips_context: bool = False
    takes_lengths: ClassVar[bool] = False
    receptive_field: int | None = None
    evaluation_options: ClassVar[tuple[str, ...]] = ()

    def forward(self, x: Tensor, state: State = None, context: int = 0) -> tuple[Tensor, State]:
        """Map a sequence to logits or values.

        A model with `takes_lengths` has the argument `lengths: Tensor | None = None`, `(batch,)`:
        the number of time steps of each sequence, all but the longest padded on the right. Its
        readout is `last` or `mean`, and must not depend on the padding; see `read_out`.

        Args:
            x: `(batch, time)` int64 or `(batch, time, dim)` float.
            state: the state returned for the previous time steps; `None`: there are none.
            context: number of leading time steps without outputs; above 0 only for a model that
                skips its context, with readout `every`.

        Returns:
            `(batch, out)` for readout `last`, `(batch, time - context, out)` for `every`; and the
            state after the last step, `None` for a model without one.
        """
        raise NotImplementedError

    @classmethod
    def with_fewer_units(
        cls, spec: SequenceSpec, options: dict[str, Any], share: float
    ) -> dict[str, Any]:
        """Return the options of a model with a share of its units removed, for `compress`.

        Args:
            spec: the problem's spec.
            options: arguments of the constructor.
            share: in [0, 1), of the units of each layer; see `seqbench.models.units.fewer`.

        Raises:
            ConfigError: if the model's units cannot be removed.
        """
        raise ConfigError(
            f"--prune units: no units of {cls.__name__} can be removed; tcn, rnn, gru, lstm and "
            "llama can be cut, and --prune weights works for every model"
        )

    def units(self) -> Sequence[Units]:
        """Return the units of which `with_fewer_units` leaves fewer."""
        return ()


def read_out(h: Tensor, readout: Readout, lengths: Tensor | None) -> Tensor:
    """Return the features from which a model computes its outputs.

    Args:
        h: features of each step, `(batch, time, width)`.
        readout: see `SequenceSpec`.
        lengths: `(batch,)`, the steps of each sequence; `None`: all are of the same length.

    Returns:
        `(batch, width)` for readout `last` and `mean`, `h` itself for `every`.
    """
    if readout == "every":
        return h
    if lengths is None:
        return h[:, -1] if readout == "last" else h.mean(1)
    if readout == "last":
        last = (lengths - 1)[:, None, None].expand(-1, 1, h.shape[2])
        return h.gather(1, last).squeeze(1)
    inside = torch.arange(h.shape[1], device=h.device) < lengths[:, None]
    return (h * inside[..., None]).sum(1) / lengths[:, None]


class PlainModule(SequenceModel):
    """A `SequenceModel` around a module with `forward(x)` that returns a tensor.

    Args:
        module: the module. Its parameters keep their names in the state dict.

    Raises:
        ConfigError: if the module declares a capability that only a `SequenceModel` can have.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        for name in ("has_state", "carry_state", "skips_context", "takes_lengths"):
            if getattr(module, name, False):
                raise ConfigError(
                    f"{type(module).__name__} has {name}: derive it from "
                    "seqbench.models.sequence_model.SequenceModel, with forward(x, state, context)"
                )
        self.module = module
        self.receptive_field = getattr(module, "receptive_field", None)

    def forward(self, x: Tensor, state: State = None, context: int = 0) -> tuple[Tensor, State]:
        """Call the module with `x` alone; see `SequenceModel.forward`.

        Raises:
            ConfigError: if the module does not return a tensor.
        """
        output = self.module(x)
        if not isinstance(output, Tensor):
            raise ConfigError(
                f"forward returned a {type(output).__name__}, expected a tensor (a model with a "
                "state derives from seqbench.models.sequence_model.SequenceModel)"
            )
        return output, None

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the module's state dict, without a prefix in its names."""
        return self.module.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Load the module's state dict."""
        return self.module.load_state_dict(*args, **kwargs)


def as_sequence_model(module: nn.Module) -> SequenceModel:
    """Return the module, wrapped in a `PlainModule` if it is not a `SequenceModel`."""
    return module if isinstance(module, SequenceModel) else PlainModule(module)
