"""Recurrent networks: LSTM (Hochreiter and Schmidhuber 1997), GRU (Cho et al. 2014) and the vanilla
tanh RNN (Elman 1990).

All three read a sequence step by step into a state of fixed size. What they can remember, and for
how long, hangs much on how the gate that keeps the old state starts out. Its bias can be set to one
value (`forget_bias`), or spread over the time scales up to a longest one (`chrono`; Tallec and
Ollivier 2018).
"""

from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from seqbench import kernels
from seqbench.errors import ConfigError
from seqbench.models.embedding import tie
from seqbench.spec import Features, SequenceSpec

# Per layer its tensors, each (batch, hidden_size): hidden and cell state of an LSTM, else the
# hidden state alone.
State = tuple[tuple[Tensor, ...], ...]


class Recurrent(nn.Module):
    """What the recurrent networks share: a stack of layers and an output layer.

    Args:
        spec: the form of the problem.
        hidden_size: width of each layer's state.
        num_layers: layers, each reading the states of the one below.
        dropout: probability of dropping a value on its way from a layer to the next, or to the
            output layer; never from one time step to the next (Zaremba et al. 2014).
        embedding_dim: width of the embedding of tokens; `None` takes `hidden_size`. Real features
            enter the first layer as they are.
        tied: share the embedding with the output layer; needs `embedding_dim` = `hidden_size`.

    Raises:
        ConfigError: a size that cannot be.
    """

    kind: ClassVar[kernels.RecurrentKind]
    layer_type: ClassVar[type[nn.LSTM] | type[nn.GRU] | type[nn.RNN]]
    carry_state = True

    def __init__(
        self,
        spec: SequenceSpec,
        hidden_size: int,
        num_layers: int,
        dropout: float,
        embedding_dim: int | None,
        tied: bool,
    ) -> None:
        super().__init__()
        if hidden_size < 1:
            raise ConfigError(f"model.hidden_size must be at least 1, not {hidden_size}")
        if num_layers < 1:
            raise ConfigError(f"model.num_layers must be at least 1, not {num_layers}")
        if not 0 <= dropout < 1:
            raise ConfigError(f"model.dropout must be in [0, 1), not {dropout}")
        if embedding_dim is not None and embedding_dim < 1:
            raise ConfigError(f"model.embedding_dim must be at least 1, not {embedding_dim}")
        self.embedding: nn.Embedding | None = None
        if isinstance(spec.input, Features):
            width = spec.input.dim
        else:
            width = embedding_dim or hidden_size
            self.embedding = nn.Embedding(spec.input.vocab_size, width)
        # One module a layer, because the dropout inside cuDNN's stacks draws from a random state
        # of its own, which neither seeds nor checkpoints govern.
        self.layers = nn.ModuleList(
            self.layer_type(width if i == 0 else hidden_size, hidden_size, batch_first=True)
            for i in range(num_layers)
        )
        self.dropout = nn.Dropout(dropout)
        self.readout = spec.readout
        self.output = nn.Linear(hidden_size, spec.output_dim)
        if tied:
            tie(self.output, self.embedding)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Map a sequence to logits or values.

        Args:
            x: `(batch, time)` int64 or `(batch, time, dim)` float.
            state: what an earlier call returned for the time steps before; `None`: zeros.

        Returns:
            `(batch, out)` for readout `last`, `(batch, time, out)` for `every`; and the state after
            the last step.
        """
        h = x if self.embedding is None else self.embedding(x)
        after = []
        for i, layer in enumerate(cast(list[nn.RNNBase], self.layers)):
            h = self.dropout(h) if i else h
            before = None if state is None else state[i]
            w_ih, w_hh, b_ih, b_hh = layer.parameters()
            h, ended = kernels.recurrent(self.kind, h, (w_ih, w_hh, b_ih, b_hh), before)
            after.append(ended)
        # Reading the last state, not the last output, keeps the gradients of all others undefined.
        h = ended[0] if self.readout == "last" else h
        return self.output(self.dropout(h)), tuple(after)


class RNN(Recurrent):
    """Vanilla recurrent network with tanh; see `Recurrent`."""

    kind = "rnn_tanh"
    layer_type = nn.RNN


class Gated(Recurrent):
    """A recurrent network with a gate that keeps the old state.

    Torch adds two biases in each gate, one beside the input's weights and one beside the state's.
    `forget_bias` and `chrono` say what their sum starts at.

    Args:
        spec: as for `Recurrent`, like the next five.
        hidden_size: width of each layer's state.
        num_layers: layers.
        dropout: probability of dropping a value between layers and before the output layer.
        embedding_dim: width of the embedding of tokens; `None` takes `hidden_size`.
        tied: share the embedding with the output layer.
        forget_bias: initial bias of the gate that keeps the old state (the LSTM's forget gate, the
            GRU's update gate): each unit keeps `sigmoid(forget_bias)` of it a step. `None`: torch's
            default, about 0.
        chrono: T_max, the longest dependency to expect, in time steps: the initial bias of the
            keeping gate is log U(1, T_max - 1), so that units forget over times from 2 to T_max
            steps; an LSTM's input gate starts at the negative of it (Tallec and Ollivier 2018,
            section 2). `None`: no such initialisation.

    Raises:
        ConfigError: a size that cannot be, or both initialisations at once.
    """

    # Where torch puts the gates among the rows of its weights, and whether there is a separate
    # input gate to start as the complement.
    keep_gate: int
    input_gate: int | None

    def __init__(
        self,
        spec: SequenceSpec,
        hidden_size: int,
        num_layers: int,
        dropout: float,
        embedding_dim: int | None,
        tied: bool,
        forget_bias: float | None,
        chrono: int | None,
    ) -> None:
        super().__init__(spec, hidden_size, num_layers, dropout, embedding_dim, tied)
        if forget_bias is not None and chrono is not None:
            raise ConfigError(
                "model.forget_bias and model.chrono set the same bias: leave one of them null"
            )
        if chrono is not None and chrono < 3:
            raise ConfigError(f"model.chrono must be at least 3 time steps, not {chrono}")
        for layer in self.layers:
            if forget_bias is not None:
                self.set_bias(layer, self.keep_gate, torch.full((hidden_size,), forget_bias))
            if chrono is not None:
                bias = torch.empty(hidden_size).uniform_(1, chrono - 1).log()
                self.set_bias(layer, self.keep_gate, bias)
                if self.input_gate is not None:
                    self.set_bias(layer, self.input_gate, -bias)

    @staticmethod
    @torch.no_grad()
    def set_bias(layer: nn.Module, gate: int, bias: Tensor) -> None:
        """Let the two biases of a gate add up to `bias`."""
        rows = slice(gate * len(bias), (gate + 1) * len(bias))
        layer.get_parameter("bias_ih_l0")[rows] = bias
        layer.get_parameter("bias_hh_l0")[rows] = 0


class LSTM(Gated):
    """Long short-term memory; see `Gated`."""

    kind = "lstm"
    layer_type = nn.LSTM
    input_gate = 0
    keep_gate = 1


class GRU(Gated):
    """Gated recurrent unit; see `Gated`. Torch's update gate multiplies the old state, where some
    papers let it multiply the new one.
    """

    kind = "gru"
    layer_type = nn.GRU
    input_gate = None
    keep_gate = 1
