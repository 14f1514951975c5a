"""A temporal convolutional network below causal self-attention.

Bai, Kolter and Koltun (2018) leave it to future work to combine the two. A TCN sees a fixed stretch
of the past, whose length takes a level for each doubling; attention sees all of it, but needs to be
told the order. Here each does what it is good at:

    input -> levels of a TCN -> attention sublayers -> output layer

The levels are those of `tcn`, with fewer of them. An attention sublayer is that of `llama`, causal
and with rotary positions, with RMSNorm before it and a residual connection around it:
`h + attention(norm(h))`. It reaches as many time steps as a training sequence has. There is no
feed-forward sublayer.

For a comparison at equal size, `attention=false` puts a position-wise feed-forward layer into the
place of each attention. With a hidden layer of twice the width and no biases it has as many weights
as the four square matrices of attention, but sees one time step only.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from seqbench.errors import ConfigError
from seqbench.models.attention import Attention, Linear
from seqbench.models.llama import RMSNorm
from seqbench.models.sequence_model import read_out
from seqbench.models.tcn import TCN, DropoutKind
from seqbench.spec import SequenceSpec

NORM_EPS = 1e-5
ROPE_THETA = 10_000.0


class FeedForward(nn.Module):
    """A position-wise feed-forward layer with the parameter count of attention, `4 dim^2`.

    Args:
        dim: width of input and output; the hidden layer has twice as many units, with ReLU.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.up = Linear(dim, 2 * dim)
        self.down = Linear(2 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer at each position, `(..., dim)` to `(..., dim)`."""
        return self.down(self.up(x).relu())


class Sublayer(nn.Module):
    """Attention, or the feed-forward layer in its place, with RMSNorm before and a residual.

    Args:
        layer: attention or feed-forward layer.
        dim: width of input and output.
        dropout: probability of dropping a value of the layer's output.
    """

    def __init__(self, layer: Attention | FeedForward, dim: int, dropout: float) -> None:
        super().__init__()
        self.norm = RMSNorm(dim, NORM_EPS)
        self.layer = layer
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, last_only: bool) -> Tensor:
        """Apply the sublayer.

        Args:
            h: `(batch, time, dim)`.
            last_only: compute the last position only.

        Returns:
            `(batch, time, dim)`, or `(batch, 1, dim)` if `last_only`.
        """
        x = self.norm(h)
        h = h[:, -1:] if last_only else h
        if isinstance(self.layer, Attention):
            y, _ = self.layer(x, None, last_only)
        else:
            y = self.layer(x[:, -1:] if last_only else x)
        return h + self.dropout(y)


class TCNAttention(TCN):
    """Temporal convolutional network with attention on its last level.

    Args:
        spec: as for `TCN`, like the next seven.
        channels: output channels of each level, first to last; level i has dilation 2^i.
        kernel_size: taps of each convolution, at least 2.
        dropout: dropout probability after each convolution and after each attention.
        dropout_kind: of the convolutions, `channel` or `element`; after attention single values.
        embedding_dim: width of the token embedding; `None`: `channels[0]`.
        tied: share the embedding's weight with the output layer.
        output_std: standard deviation of the output layer's initial weights; `None`: PyTorch's
            default.
        attention: False: feed-forward layers of the same size in the place of attention.
        attention_layers: attention sublayers, at least 1.
        num_heads: heads of each attention; `channels[-1] / num_heads` must be an even integer.

    Raises:
        ConfigError: as for `TCN`, or if the heads do not fit.
    """

    skips_context = False

    def __init__(
        self,
        spec: SequenceSpec,
        channels: Sequence[int],
        kernel_size: int,
        dropout: float,
        dropout_kind: DropoutKind,
        embedding_dim: int | None,
        tied: bool,
        output_std: float | None,
        attention: bool,
        attention_layers: int,
        num_heads: int,
    ) -> None:
        super().__init__(
            spec, channels, kernel_size, dropout, dropout_kind, embedding_dim, tied, output_std
        )
        for name, size in (("attention_layers", attention_layers), ("num_heads", num_heads)):
            if size < 1:
                raise ConfigError(f"model.{name} must be at least 1, not {size}")
        dim = channels[-1]
        if dim % (2 * num_heads):
            raise ConfigError(
                f"the last of model.channels, {dim}, must be a multiple of twice "
                f"model.num_heads={num_heads}, so that each head has pairs of dimensions to rotate"
            )

        def layer() -> Attention | FeedForward:
            heads = (num_heads, num_heads)
            return (
                Attention(dim, *heads, ROPE_THETA, spec.length) if attention else FeedForward(dim)
            )

        self.sublayers = nn.ModuleList(
            Sublayer(layer(), dim, dropout) for _ in range(attention_layers)
        )
        if attention:
            self.receptive_field = None

    def forward(
        self, x: Tensor, state: None = None, context: int = 0, lengths: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """Map a sequence to logits or values.

        Args:
            x: `(batch, time)` int64 or `(batch, time, dim)` float.
            state: must be `None`.
            context: must be 0.
            lengths: see `SequenceModel.forward`.

        Returns:
            `(batch, out)` for readout `last` and `mean`, `(batch, time, out)` for `every`; and
            `None`, since the model has no state.
        """
        # The compiled levels return half precision under autocast; the residual stream, which
        # RMSNorm reads, is in the weights' dtype.
        h = self.levels(x).to(self.output.weight.dtype)
        last = self.readout == "last" and lengths is None
        for i, sublayer in enumerate(self.sublayers):
            # If only the last step is read, the last sublayer computes no other.
            h = sublayer(h, last and i == len(self.sublayers) - 1)
        return self.output(read_out(h, self.readout, lengths)), None

    @classmethod
    def with_fewer_units(
        cls, spec: SequenceSpec, options: dict[str, Any], share: float
    ) -> dict[str, Any]:
        """Refuse, since attention reads the channels, too."""
        return super(TCN, cls).with_fewer_units(spec, options, share)

    def levels(self, x: Tensor) -> Tensor:
        """Return the last level's output at every time step, `(batch, time, channels)`."""
        time = x.shape[1]
        return self.features(x, self.shapes(time, time, last=False))
