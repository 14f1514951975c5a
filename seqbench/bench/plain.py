"""Implement the published architectures in textbook PyTorch, as plain references for speed.

No time step is skipped, nothing is fused by hand, and weights keep torch's initialization. Each
model is built as `Model(spec, **sizes)` and computes the same function of the same weights as
seqbench's model.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from seqbench.errors import ConfigError
from seqbench.kernels import reference
from seqbench.models.embedding import input_layer, tie
from seqbench.models.sequence_model import SequenceModel, State, as_sequence_model
from seqbench.spec import Features, SequenceSpec

# Settings of seqbench's models that only affect the initial weights.
INITIAL = ("forget_bias", "chrono", "output_std")


class Block(nn.Module):
    """Residual block (Bai, Kolter, Koltun 2018, section 3.3, figure 1b).

    Args:
        before: channels of the input.
        after: channels of the output.
        kernel_size: taps of each convolution.
        dilation: distance between taps.
        dropout: the dropout layer.
    """

    def __init__(
        self, before: int, after: int, kernel_size: int, dilation: int, dropout: nn.Module
    ) -> None:
        super().__init__()
        # torch pads both sides; `chomp` removes the outputs that see the future.
        self.padding = (kernel_size - 1) * dilation
        self.conv1, self.conv2 = (
            weight_norm(
                nn.Conv1d(width, after, kernel_size, padding=self.padding, dilation=dilation)
            )
            for width in (before, after)
        )
        self.downsample = nn.Conv1d(before, after, 1) if before != after else nn.Identity()
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, before, time)` to `(batch, after, time)`."""
        y = self.dropout(F.relu(self.chomp(self.conv1(x))))
        y = self.dropout(F.relu(self.chomp(self.conv2(y))))
        return F.relu(y + self.downsample(x))

    def chomp(self, x: Tensor) -> Tensor:
        """Remove the last `padding` positions."""
        return x[..., : -self.padding].contiguous()


class TCN(nn.Module):
    """Temporal convolutional network (Bai, Kolter, Koltun 2018): every level at every time step.

    Args:
        spec: input, target, readout and length of the task.
        channels: width of each level.
        kernel_size: taps of each convolution.
        dropout: probability of dropout after each convolution.
        dropout_kind: `channel` or `element`.
        embedding_dim: width of the token embedding; `None`: the width of the first level.
        tied: True to share the embedding's weights with the output layer.
    """

    def __init__(
        self,
        spec: SequenceSpec,
        channels: Sequence[int],
        kernel_size: int,
        dropout: float,
        dropout_kind: str,
        embedding_dim: int | None,
        tied: bool,
    ) -> None:
        super().__init__()
        self.embedding, width = embedding(spec, embedding_dim or channels[0])
        drop = nn.Dropout1d(dropout) if dropout_kind == "channel" else nn.Dropout(dropout)
        self.blocks = nn.Sequential(
            *(
                Block(before, after, kernel_size, 2**i, drop)
                for i, (before, after) in enumerate(
                    zip([width, *channels[:-1]], channels, strict=True)
                )
            )
        )
        self.output = nn.Linear(channels[-1], spec.output_dim)
        if tied:
            tie(self.output, self.embedding)
        self.readout = spec.readout

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, of the shape that `SequenceSpec.readout` asks for."""
        y = self.blocks(self.embedding(x).transpose(1, 2)).transpose(1, 2)
        return self.output(y[:, -1] if self.readout == "last" else y)


class Recurrent(SequenceModel):
    """Torch's recurrent layers and a linear output layer.

    Args:
        spec: input, target, readout and length of the task.
        hidden_size: width of each layer's state.
        num_layers: number of recurrent layers.
        dropout: probability of dropout between layers and before the output layer.
        embedding_dim: width of the token embedding; `None`: `hidden_size`.
        tied: True to share the embedding's weights with the output layer.
    """

    has_state = True
    carry_state = True
    kind: type[nn.LSTM] | type[nn.GRU] | type[nn.RNN]

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
        self.embedding, width = embedding(spec, embedding_dim or hidden_size)
        between = dropout if num_layers > 1 else 0.0  # torch warns about dropout with one layer
        self.layers = self.kind(width, hidden_size, num_layers, batch_first=True, dropout=between)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden_size, spec.output_dim)
        if tied:
            tie(self.output, self.embedding)
        self.readout = spec.readout

    def forward(self, x: Tensor, state: State = None, context: int = 0) -> tuple[Tensor, State]:
        """Return the outputs and the state after the last step; the state is that of `layers`."""
        h, state = self.layers(self.embedding(x), state)
        return self.output(self.dropout(h[:, -1] if self.readout == "last" else h)), state


class LSTM(Recurrent):
    """`nn.LSTM`."""

    kind = nn.LSTM


class GRU(Recurrent):
    """`nn.GRU`."""

    kind = nn.GRU


class RNN(Recurrent):
    """`nn.RNN`, with tanh."""

    kind = nn.RNN


class RMSNorm(nn.Module):
    """Root mean square normalization (Zhang and Sennrich 2019, equation 4)."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last dimension."""
        return reference.rms_norm(x, self.weight, self.eps)


class Attention(nn.Module):
    """Masked softmax attention (Vaswani et al. 2017, section 3.2) with rotary positions (Su et al.
    2021, section 3.2.2), without a fused kernel.
    """

    cos: Tensor
    sin: Tensor
    mask: Tensor

    def __init__(
        self, dim: int, num_heads: int, num_kv_heads: int, theta: float, context: int, length: int
    ) -> None:
        super().__init__()
        self.head_dim = dim // num_heads
        self.shared_by = num_heads // num_kv_heads
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, num_kv_heads * self.head_dim, bias=False)
        self.value = nn.Linear(dim, num_kv_heads * self.head_dim, bias=False)
        self.output = nn.Linear(dim, dim, bias=False)
        # In float64: float32 angles of far positions are off in the fourth digit.
        pairs = torch.arange(0, self.head_dim, 2, dtype=torch.float64)
        positions = torch.arange(length, dtype=torch.float64)
        angles = torch.outer(positions, theta ** (-pairs / self.head_dim)).repeat(1, 2)
        kind = torch.get_default_dtype()
        distance = positions[:, None] - positions
        hidden = (distance < 0) | (distance >= context)
        mask = torch.zeros(length, length).masked_fill(hidden, -math.inf)
        for name, table in (("cos", angles.cos()), ("sin", angles.sin()), ("mask", mask)):
            self.register_buffer(name, table.to(kind), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, time, dim)` to the same shape."""
        q, k, v = (
            layer(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        q, k = self.rotate(q), self.rotate(k)
        k, v = k.repeat_interleave(self.shared_by, 1), v.repeat_interleave(self.shared_by, 1)
        time = x.shape[1]
        scores = q @ k.transpose(2, 3) / math.sqrt(self.head_dim) + self.mask[:time, :time]
        return self.output((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))

    def rotate(self, x: Tensor) -> Tensor:
        """Rotate each pair of dimensions of `(batch, heads, time, head_dim)` by its angle."""
        first, second = x.chunk(2, -1)
        time = x.shape[2]
        return x * self.cos[:time] + torch.cat([-second, first], -1) * self.sin[:time]


class SwiGLU(nn.Module):
    """Gated feed-forward layer (Shazeer 2020)."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, hidden_dim, bias=False)
        self.up = nn.Linear(dim, hidden_dim, bias=False)
        self.down = nn.Linear(hidden_dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, time, dim)` to the same shape, each position by itself."""
        return self.down(reference.swiglu(self.gate(x), self.up(x)))


class DecoderLayer(nn.Module):
    """Attention, then SwiGLU, each with pre-normalization and a residual connection (Touvron et al.
    2023, section 2.2).
    """

    def __init__(
        self, attention: Attention, feed_forward: SwiGLU, dim: int, eps: float, dropout: float
    ) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(dim, eps)
        self.attention = attention
        self.feed_forward_norm = RMSNorm(dim, eps)
        self.feed_forward = feed_forward
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, time, dim)` to the same shape."""
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class Llama(nn.Module):
    """LLaMA decoder (Touvron et al. 2023, section 2.2), with the settings of
    `seqbench.models.llama.Llama`, but without a cache.

    Raises:
        ConfigError: if `carry_state` is True.
    """

    def __init__(
        self,
        spec: SequenceSpec,
        dim: int,
        num_layers: int,
        num_heads: int,
        num_kv_heads: int | None,
        hidden_dim: int | None,
        dropout: float,
        rope_theta: float,
        norm_eps: float,
        tied: bool,
        context: int | None,
        carry_state: bool,
    ) -> None:
        super().__init__()
        if carry_state:
            raise ConfigError("--reference has no plain decoder with model.carry_state=true")
        kv_heads, width = num_kv_heads or num_heads, hidden_dim or 8 * math.ceil(dim / 3)
        window = context or spec.length
        self.embedding = input_layer(spec, dim)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(
            *(
                DecoderLayer(
                    Attention(dim, num_heads, kv_heads, rope_theta, window, spec.length),
                    SwiGLU(dim, width),
                    dim,
                    norm_eps,
                    dropout,
                )
                for _ in range(num_layers)
            )
        )
        self.norm = RMSNorm(dim, norm_eps)
        self.output = nn.Linear(dim, spec.output_dim, bias=False)
        if tied:
            tie(self.output, self.embedding)
        self.readout = spec.readout

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, of the shape that `SequenceSpec.readout` asks for."""
        y = self.output(self.norm(self.blocks(self.dropout(self.embedding(x)))))
        return y[:, -1] if self.readout == "last" else y


def embedding(spec: SequenceSpec, width: int) -> tuple[nn.Module, int]:
    """Return the layer that reads the input, and its output width; features pass unchanged."""
    if isinstance(spec.input, Features):
        return nn.Identity(), spec.input.dim
    return nn.Embedding(spec.input.vocab_size, width), width


PLAIN: dict[str, type[nn.Module]] = {
    "seqbench.models.tcn.TCN": TCN,
    "seqbench.models.rnn.LSTM": LSTM,
    "seqbench.models.rnn.GRU": GRU,
    "seqbench.models.rnn.RNN": RNN,
    "seqbench.models.llama.Llama": Llama,
}


def twin(node: dict[str, Any], spec: SequenceSpec) -> SequenceModel:
    """Build the plain model of the same architecture and sizes.

    Args:
        node: the config's `model` node.
        spec: input, target, readout and length of the task.

    Raises:
        ConfigError: if the model is custom, and so has no plain form.
    """
    check_known(node)
    sizes = {k: v for k, v in node.items() if not k.startswith("_") and k not in INITIAL}
    return as_sequence_model(PLAIN[node["_target_"]](spec, **sizes))


def check_known(node: dict[str, Any]) -> None:
    """Raise ConfigError if the config's `model` node has no plain form."""
    if node["_target_"] not in PLAIN:
        raise ConfigError(f"--reference knows of seqbench's models only, not of {node['_target_']}")
