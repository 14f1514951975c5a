"""Temporal convolutional network (Bai, Kolter, Koltun 2018, section 3).

A stack of residual blocks; block i holds two causal convolutions of dilation 2^i, so the receptive
field grows exponentially with depth while the past never sees the future.

Read at the last step only, most of that stack is never looked at: block i is asked for every
2^(i+1)-th position, counted back from the end. On the grid of those positions the dilation becomes
one, and the second convolution of a block takes stride two. That is the same function of the same
weights (zero padding falls on the same places), with about 3T instead of 2T x levels positions
computed.

Read at every step but the first few, as in windows of a text that begin with a context, each
convolution leaves out what is before the reach of those after it.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import register_parametrization

from seqbench.errors import ConfigError
from seqbench.models import tcn_cpu
from seqbench.models.embedding import tie
from seqbench.spec import Features, SequenceSpec

DropoutKind = Literal["channel", "element"]


class WeightNorm(nn.Module):
    """A weight as a magnitude for each output, and a direction (Salimans and Kingma 2016)."""

    def forward(self, magnitude: Tensor, direction: Tensor) -> Tensor:
        """From `(out, 1, 1)` and `(out, in, kernel_size)` to `(out, in, kernel_size)`."""
        if any(map(torch._C._functorch.is_batchedtensor, (direction, magnitude))):
            return NormOfSeveral.apply(direction, magnitude)
        return torch._weight_norm(direction, magnitude, 0)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Magnitude and direction of a weight."""
        return torch.norm_except_dim(weight, 2, 0), weight


class NormOfSeveral(torch.autograd.Function):
    """Torch's weight norm of several models at once, as if all their outputs were those of one.
    `vmap` by itself would take one model after the other.
    """

    @staticmethod
    def forward(direction: Tensor, magnitude: Tensor) -> Tensor:
        """Is never called: `vmap` takes the other way."""
        raise NotImplementedError

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep nothing: torch's own operation knows its way back."""

    @staticmethod
    def vmap(
        info: Any, dims: tuple[int | None, ...], direction: Tensor, magnitude: Tensor
    ) -> tuple[Tensor, int]:
        """Normalise weights of `info.batch_size` models along the given dimensions."""
        direction, magnitude = (
            x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
            for x, dim in zip((direction, magnitude), dims, strict=True)
        )
        weight = torch._weight_norm(direction.flatten(0, 1), magnitude.flatten(0, 1), 0)
        return weight.view_as(direction), 0


def weight_norm(conv: nn.Conv1d) -> nn.Conv1d:
    """Let a convolution's weight be a magnitude and a direction."""
    register_parametrization(conv, "weight", WeightNorm(), unsafe=True)
    return conv


def norm_of(conv: nn.Conv1d) -> tuple[Tensor, Tensor]:
    """Magnitude and direction of a convolution's weight."""
    normed: Any = conv.parametrizations
    return normed.weight.original0, normed.weight.original1


class Block(nn.Module):
    """Two weight-normalised causal convolutions with a residual connection (section 3.3).

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: taps of each convolution.
        dilation: distance between taps when the block runs on the full time grid.
        dropout: probability of dropping after each convolution.
        dropout_kind: `channel` drops whole channels of a sequence, as the paper says; `element`
            drops single values, as the released code does.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        dilation: int,
        dropout: float,
        dropout_kind: DropoutKind,
    ) -> None:
        super().__init__()
        self.conv1 = weight_norm(nn.Conv1d(in_channels, out_channels, kernel_size))
        self.conv2 = weight_norm(nn.Conv1d(out_channels, out_channels, kernel_size))
        self.downsample = None
        if in_channels != out_channels:
            self.downsample = nn.Conv1d(in_channels, out_channels, 1)
            nn.init.normal_(self.downsample.weight, std=0.01)
        self.dropout = nn.Dropout1d(dropout) if dropout_kind == "channel" else nn.Dropout(dropout)
        self.dilation = dilation

    def forward(self, x: Tensor, thin: bool, skip: int) -> Tensor:
        """Apply the block.

        Args:
            x: `(batch, in_channels, time)`; with `thin`, time is the grid of spacing `dilation`
                that ends at the last step.
            thin: compute only what the next block, or the last step, reads.
            skip: on the full grid, the leading positions that nobody reads.

        Returns:
            `(batch, out_channels, time - skip)`, or with `thin` every second position, the last
            one included.
        """
        dilation, stride = (1, 2) if thin else (self.dilation, 1)
        reach = (self.conv2.kernel_size[0] - 1) * self.dilation
        early = max(0, skip - reach)
        if stride > 1:
            skip = (x.shape[-1] - 1) % stride
        convs, project = (self.conv1, self.conv2), self.downsample
        if tcn_cpu.pays(x.transpose(1, 2), *(norm_of(conv)[1] for conv in convs)):
            forms = (
                tcn_cpu.Form(dilation, 1, x.shape[-1] - early),
                tcn_cpu.Form(dilation, stride, (x.shape[-1] - skip + stride - 1) // stride),
            )
            y, *_ = tcn_cpu.ResidualBlock.apply(
                tcn_cpu.under_autocast(x.transpose(1, 2)),
                forms,
                *self.layer(self.conv1, len(x), forms[0].length),
                *self.layer(self.conv2, len(x), forms[1].length),
                *((project.weight, project.bias) if project is not None else ()),
            )
            return y.transpose(1, 2)
        y = self.dropout(causal_conv_relu(x, self.conv1, dilation, skip=early))
        y = self.dropout(causal_conv_relu(y, self.conv2, dilation, stride, skip - early))
        x = x[..., skip::stride]
        if project is not None:
            # One tap makes a product of matrices, without a convolution's other order of memory.
            x = F.linear(x.transpose(1, 2), project.weight.squeeze(2), project.bias)
            x = x.transpose(1, 2)
        return F.relu(y + x, inplace=True)

    def layer(self, conv: nn.Conv1d, batch: int, length: int) -> tuple[Tensor | None, ...]:
        """Of a convolution: magnitude and direction of the weights, bias, and what dropout
        multiplies its outputs by, if it drops any.
        """
        mask, (magnitude, direction) = None, norm_of(conv)
        if self.dropout.training and self.dropout.p > 0:
            if isinstance(self.dropout, nn.Dropout1d):
                mask = self.dropout(direction.new_ones(batch, len(direction), 1)).squeeze(2)
            else:
                mask = self.dropout(direction.new_ones(batch, length, len(direction)))
        return magnitude, direction, conv.bias, mask


def causal_conv_relu(
    x: Tensor, conv: nn.Conv1d, dilation: int, stride: int = 1, skip: int = 0
) -> Tensor:
    """Convolve so that output t reads inputs <= t, and the last output stands at the last input;
    then ReLU.

    Args:
        x: `(batch, channels, time)`.
        conv: holds `weight` `(out, channels, kernel_size)` and `bias` `(out,)`.
        dilation: distance between taps.
        stride: keep every `stride`-th output, counted back from the last.
        skip: leading outputs to leave out.

    Returns:
        `(batch, out, ceil((time - skip) / stride))`.
    """
    reach = (conv.kernel_size[0] - 1) * dilation
    off_grid = (x.shape[-1] - 1 - skip) % stride
    # Less than no padding takes away what no output reads.
    padded = F.pad(x.unsqueeze(2), (reach - off_grid - skip, 0))
    # As an image of height 1 with channels last: the layout in which sequences arrive, and in which
    # a CPU convolves up to twice as fast.
    weight = conv.weight.permute(0, 2, 1).contiguous().permute(0, 2, 1).unsqueeze(2)
    y = F.conv2d(padded, weight, conv.bias, stride=(1, stride), dilation=(1, dilation))
    return F.relu(y.squeeze(2))


class TCN(nn.Module):
    """Temporal convolutional network.

    Args:
        spec: the form of the problem.
        channels: width of each level, first to last; the dilation of level i is 2^i.
        kernel_size: taps of each convolution, at least 2.
        dropout: probability of dropping after each convolution.
        dropout_kind: `channel` (the paper) or `element` (the released code since 2018-04-16).
        embedding_dim: width of the embedding of tokens; `None` takes the first level's width.
            Real features enter the first level as they are.
        tied: share the embedding with the output layer; the last level must be as wide as it.
        output_std: standard deviation of the output layer's initial weights; `None` for torch's
            default. The paper's is 0.01.

    Raises:
        ConfigError: a size that cannot be.
    """

    skips_context = True

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
    ) -> None:
        super().__init__()
        if not channels or min(channels) < 1:
            raise ConfigError(f"model.channels must be positive widths, not {list(channels)}")
        if kernel_size < 2:
            raise ConfigError(f"model.kernel_size must be at least 2, not {kernel_size}")
        if not 0 <= dropout < 1:
            raise ConfigError(f"model.dropout must be in [0, 1), not {dropout}")
        self.embedding: nn.Embedding | None = None
        if isinstance(spec.input, Features):
            width = spec.input.dim
        else:
            width = embedding_dim or channels[0]
            self.embedding = nn.Embedding(spec.input.vocab_size, width)
        self.readout = spec.readout
        # How far back each block reads, by its two convolutions.
        self.reaches = [2 * (kernel_size - 1) * 2**i for i in range(len(channels))]
        self.receptive_field = 1 + sum(self.reaches)
        self.blocks = nn.ModuleList(
            Block(before, after, kernel_size, 2**i, dropout, dropout_kind)
            for i, (before, after) in enumerate(zip([width, *channels[:-1]], channels, strict=True))
        )
        self.output = nn.Linear(channels[-1], spec.output_dim)
        if output_std is not None:
            nn.init.normal_(self.output.weight, std=output_std)
        if tied:
            tie(self.output, self.embedding)

    def forward(self, x: Tensor, context: int = 0) -> Tensor:
        """Map a sequence to logits or values.

        Args:
            x: `(batch, time)` int64 or `(batch, time, dim)` float.
            context: for readout `every`, leading steps at which no answer is wanted.

        Returns:
            `(batch, out)` for readout `last`, `(batch, time - context, out)` for `every`.
        """
        thin = self.readout == "last"
        # From where on each block is read, and at last the input.
        read = [0 if thin else context]
        for reach in reversed(self.reaches):
            read.insert(0, max(0, read[0] - reach))
        x = x[:, read[0] :]
        h = (x if self.embedding is None else self.embedding(x)).transpose(1, 2)
        for block, (before, after) in zip(self.blocks, pairwise(read), strict=True):
            h = block(h, thin, after - before)
        if thin:
            return self.output(h[..., -1])
        return self.output(h.transpose(1, 2))
