"""Recurrent networks: LSTM (Hochreiter and Schmidhuber 1997), GRU (Cho et al. 2014) and the vanilla
tanh RNN (Elman 1990).

How long a network remembers depends strongly on its initialization: for a gated network, on the
bias of the gate that keeps the old state, which can be one value (`forget_bias`) or spread over a
range of time scales (`chrono`; Tallec and Ollivier 2018); for the vanilla RNN, on the matrix from
state to state (`recurrent_init`; Le, Jaitly and Hinton 2015; Henaff, Szlam and LeCun 2016).
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from seqbench import kernels
from seqbench.errors import ConfigError
from seqbench.models.embedding import tie
from seqbench.models.sequence_model import SequenceModel, read_out
from seqbench.models.units import Place, Units, fewer
from seqbench.spec import Features, SequenceSpec

# One tuple per layer, of tensors (batch, hidden_size): hidden and cell state for an LSTM, the
# hidden state for the others.
State = tuple[tuple[Tensor, ...], ...]


class Recurrent(SequenceModel):
    """Base class of the recurrent networks: an embedding, recurrent layers and an output layer.

    Args:
        spec: the problem's spec.
        hidden_size: width of each layer's state.
        num_layers: recurrent layers.
        dropout: probability of dropping a value between layers and before the output layer; not
            between time steps (Zaremba et al. 2014).
        embedding_dim: width of the token embedding; `None`: `hidden_size`. Real features enter the
            first layer directly.
        tied: share the embedding's weight with the output layer; needs `embedding_dim` =
            `hidden_size`.
        init_uniform: all weights and biases start uniformly within plus and minus this (Zaremba et
            al. 2014); `None`: PyTorch's defaults.

    Raises:
        ConfigError: if a value is out of range or the sizes do not fit together.
    """

    kind: ClassVar[kernels.RecurrentKind]
    layer_type: ClassVar[type[nn.LSTM] | type[nn.GRU] | type[nn.RNN]]
    has_state = True
    carry_state = True
    takes_lengths = True

    def __init__(
        self,
        spec: SequenceSpec,
        hidden_size: int,
        num_layers: int,
        dropout: float,
        embedding_dim: int | None,
        tied: bool,
        init_uniform: float | None = None,
    ) -> None:
        super().__init__()
        if init_uniform is not None and init_uniform <= 0:
            raise ConfigError(f"model.init_uniform must be positive, not {init_uniform}")
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
        # One module per layer: the dropout inside multi-layer cuDNN modules has its own random
        # state, which neither seeds nor checkpoints control.
        self.layers = nn.ModuleList(
            self.layer_type(width if i == 0 else hidden_size, hidden_size, batch_first=True)
            for i in range(num_layers)
        )
        self.dropout = nn.Dropout(dropout)
        self.readout = spec.readout
        self.output = nn.Linear(hidden_size, spec.output_dim)
        if tied:
            tie(self.output, self.embedding)
        if init_uniform is not None:
            for weight in self.parameters():
                nn.init.uniform_(weight, -init_uniform, init_uniform)

    def forward(
        self,
        x: Tensor,
        state: State | None = None,
        context: int = 0,
        lengths: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Map a sequence to logits or values.

        Args:
            x: `(batch, time)` int64 or `(batch, time, dim)` float.
            state: the state returned for the previous time steps; `None`: zeros.
            context: must be 0.
            lengths: see `SequenceModel.forward`.

        Returns:
            `(batch, out)` for readout `last` and `mean`, `(batch, time, out)` for `every`; and the
            state after the last step.
        """
        h = x if self.embedding is None else self.embedding(x)
        after = []
        for i, layer in enumerate(cast(list[nn.RNNBase], self.layers)):
            h = self.dropout(h) if i else h
            before = None if state is None else state[i]
            w_ih, w_hh, b_ih, b_hh = layer.parameters()
            h, ended = kernels.recurrent(self.kind, h, (w_ih, w_hh, b_ih, b_hh), before)
            after.append(ended)
        # Read the final state, not h[:, -1]: the output sequence then has no gradient to compute.
        is_last = self.readout == "last" and lengths is None
        h = ended[0] if is_last else read_out(h, self.readout, lengths)
        return self.output(self.dropout(h)), tuple(after)

    @classmethod
    def with_fewer_units(
        cls, spec: SequenceSpec, options: dict[str, Any], share: float
    ) -> dict[str, Any]:
        """Return options with a smaller state; see `SequenceModel.with_fewer_units`."""
        width = fewer(options["hidden_size"], share)
        if isinstance(spec.input, Features):
            return options | {"hidden_size": width}
        embedding = options["embedding_dim"] or options["hidden_size"]
        if options["tied"]:  # the embedding's columns are those of the output layer
            embedding = width
        return options | {"hidden_size": width, "embedding_dim": embedding}

    def units(self) -> Sequence[Units]:
        """Return the hidden units of each layer, with their gates."""
        found = []
        tied = self.embedding is not None and self.embedding.weight is self.output.weight
        for i, layer in enumerate(cast(list[nn.RNNBase], self.layers)):
            is_last = i == len(self.layers) - 1
            gates = len(layer.get_parameter("weight_hh_l0")) // layer.hidden_size
            names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
            places = [Place(f"layers.{i}.{name}", 0, gates) for name in names]
            places.append(Place(f"layers.{i}.weight_hh_l0", 1))
            reads_it = [f"layers.{i + 1}.weight_ih_l0"]
            if is_last:
                reads_it = (
                    ["embedding.weight", "layers.0.weight_ih_l0"] if tied else ["output.weight"]
                )
            places += [Place(name, 1) for name in reads_it]
            found.append(Units(f"hidden units of layer {i}", layer.hidden_size, places))
        return found


class RNN(Recurrent):
    """Vanilla tanh recurrent network.

    Args:
        spec: as for `Recurrent`, like the next five.
        hidden_size: width of each layer's state.
        num_layers: recurrent layers.
        dropout: probability of dropping a value between layers and before the output layer.
        embedding_dim: width of the token embedding; `None`: `hidden_size`.
        tied: share the embedding's weight with the output layer.
        init_uniform: as for `Recurrent`.
        recurrent_init: `orthogonal` or `identity`: each layer's matrix from state to state starts
            as a random orthogonal one (Henaff, Szlam and LeCun 2016) or as the identity (Le, Jaitly
            and Hinton 2015, there with ReLU), and its biases at 0. A small state then neither fades
            nor grows with the time steps. `None`: as `init_uniform` says.

    Raises:
        ConfigError: as for `Recurrent`, or if both `init_uniform` and `recurrent_init` are given.
    """

    kind = "rnn_tanh"
    layer_type = nn.RNN

    def __init__(
        self,
        spec: SequenceSpec,
        hidden_size: int,
        num_layers: int,
        dropout: float,
        embedding_dim: int | None,
        tied: bool,
        init_uniform: float | None = None,
        recurrent_init: Literal["orthogonal", "identity"] | None = None,
    ) -> None:
        super().__init__(spec, hidden_size, num_layers, dropout, embedding_dim, tied, init_uniform)
        if recurrent_init is None:
            return
        if init_uniform is not None:
            raise ConfigError(
                "model.recurrent_init and model.init_uniform set the same weights: "
                "leave one of them null"
            )
        start = {"orthogonal": nn.init.orthogonal_, "identity": nn.init.eye_}[recurrent_init]
        for layer in self.layers:
            start(layer.get_parameter("weight_hh_l0"))
            nn.init.zeros_(layer.get_parameter("bias_ih_l0"))
            nn.init.zeros_(layer.get_parameter("bias_hh_l0"))


class Gated(Recurrent):
    """Base class of the recurrent networks with a gate that keeps the old state.

    That gate is the LSTM's forget gate or the GRU's update gate. PyTorch has two biases per gate,
    for the input and for the state; `forget_bias` and `chrono` set the initial value of their sum.

    Args:
        spec: as for `Recurrent`, like the next five.
        hidden_size: width of each layer's state.
        num_layers: recurrent layers.
        dropout: probability of dropping a value between layers and before the output layer.
        embedding_dim: width of the token embedding; `None`: `hidden_size`.
        tied: share the embedding's weight with the output layer.
        forget_bias: initial bias of the gate: per step each unit keeps about
            `sigmoid(forget_bias)` of its state. `None`: PyTorch's default, about 0.
        chrono: T_max, the longest expected dependency in time steps: the initial bias of the gate
            is log U(1, T_max - 1), which gives units time constants from 2 to T_max steps; an
            LSTM's input gate starts at the negative bias (Tallec and Ollivier 2018, section 2).
            `None`: no such initialisation.
        init_uniform: as for `Recurrent`.

    Raises:
        ConfigError: as for `Recurrent`, or if both `forget_bias` and `chrono` are given.
    """

    # The gates' indices in PyTorch's stacked weights. `input_gate` is None if the model has no
    # separate input gate.
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
        init_uniform: float | None = None,
    ) -> None:
        super().__init__(spec, hidden_size, num_layers, dropout, embedding_dim, tied, init_uniform)
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
        """Set a gate's input bias to `bias` and its state bias to zero.

        Args:
            layer: a recurrent layer.
            gate: index of the gate in the layer's stacked weights.
            bias: `(hidden_size,)`.
        """
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
    """Gated recurrent unit; see `Gated`.

    PyTorch's update gate multiplies the old state; in some papers it multiplies the new one.
    """

    kind = "gru"
    layer_type = nn.GRU
    input_gate = None
    keep_gate = 1
