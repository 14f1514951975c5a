"""Run a recurrent layer as one operator of ONNX, with the weights of torch's layer."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from seqbench.models import rnn


class Operator(NamedTuple):
    """An operator of ONNX.

    Attributes:
        name: in ONNX.
        gates: for each of its gates, the index of the gate in torch's stacked weights.
        states: number of its states: hidden and, for an LSTM, cell state.
        options: attributes with which it computes the same function as torch.
    """

    name: str
    gates: tuple[int, ...]
    states: int
    options: dict[str, int]


OPERATORS = {
    "lstm": Operator("LSTM", (0, 3, 1, 2), 2, {}),
    "gru": Operator("GRU", (1, 0, 2), 1, {"linear_before_reset": 1}),
    "rnn_tanh": Operator("RNN", (0,), 1, {}),
}


class RecurrentLayer(nn.Module):
    """A recurrent layer for `torch.onnx.export`; outside of it, its outputs are zeros.

    Args:
        kind: as `rnn.Recurrent.kind`.
        layer: gives the weights.
    """

    input_weight: Tensor
    state_weight: Tensor
    bias: Tensor

    def __init__(self, kind: str, layer: nn.RNNBase) -> None:
        super().__init__()
        self.operator = OPERATORS[kind]
        self.hidden_size = layer.hidden_size
        w_ih, w_hh, b_ih, b_hh = (self.ordered(p.detach()) for p in layer.parameters())
        self.register_buffer("input_weight", w_ih[None])
        self.register_buffer("state_weight", w_hh[None])
        self.register_buffer("bias", torch.cat([b_ih, b_hh])[None])

    def ordered(self, weight: Tensor) -> Tensor:
        """Return a stacked weight with its gates in the order of ONNX."""
        parts = weight.chunk(len(self.operator.gates))
        return torch.cat([parts[gate] for gate in self.operator.gates])

    def zeros(self, batch: int) -> tuple[Tensor, ...]:
        """Return the state before the first time step, `(batch, hidden_size)` each."""
        # Tensors of their own: in a trace, one that is given twice is one input.
        return tuple(torch.zeros(batch, self.hidden_size) for _ in range(self.operator.states))

    def forward(
        self, x: Tensor, state: tuple[Tensor, ...] | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Map `(batch, time, dim)` to `(batch, time, hidden_size)`; also return the state."""
        batch, time = x.shape[:2]
        weights = [self.input_weight, self.state_weight, self.bias]
        before = [] if state is None else [None, *(part[None] for part in state)]
        of_state = [1, batch, self.hidden_size]
        output, *after = torch.onnx.ops.symbolic_multi_out(
            self.operator.name,
            [x.transpose(0, 1), *weights, *before],
            {"hidden_size": self.hidden_size, **self.operator.options},
            dtypes=[x.dtype] * (1 + self.operator.states),
            shapes=[[time, *of_state], *[of_state] * self.operator.states],
        )
        return output[:, 0].transpose(0, 1), tuple(part[0] for part in after)


def replace_layers(model: rnn.Recurrent) -> None:
    """Replace the layers of a plain recurrent model by operators of ONNX, in place."""
    for i, layer in enumerate(model.layers):
        assert isinstance(layer, nn.RNNBase)
        model.layers[i] = RecurrentLayer(model.kind, layer)
