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
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import register_parametrization

from seqbench.errors import ConfigError
from seqbench.models import tcn_cpu
from seqbench.models.embedding import tie
from seqbench.models.tcn_cpu import Form
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
        dropout: probability of dropping after each convolution.
        dropout_kind: `channel` drops whole channels of a sequence, as the paper says; `element`
            drops single values, as the released code does.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
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

    def forward(self, x: Tensor, form: Form) -> Tensor:
        """Apply the block.

        Args:
            x: `(batch, in_channels, time)`.
            form: what is asked for.

        Returns:
            `(batch, out_channels, form.length)`.
        """
        y = causal_conv_relu(x, self.conv1, form.dilation, 1, form.middle)
        y = causal_conv_relu(self.dropout(y), self.conv2, form.dilation, form.stride, form.length)
        x = x[..., x.shape[-1] - 1 - (form.length - 1) * form.stride :: form.stride]
        if self.downsample is not None:
            # One tap makes a product of matrices, without a convolution's other order of memory.
            weight, bias = self.downsample.weight, self.downsample.bias
            x = F.linear(x.transpose(1, 2), weight.squeeze(2), bias).transpose(1, 2)
        return F.relu(self.dropout(y) + x, inplace=True)

    def weights(self) -> list[Tensor | None]:
        """Of both convolutions magnitude, direction and bias; of the projection weight and bias."""
        normed = [value for c in (self.conv1, self.conv2) for value in (*norm_of(c), c.bias)]
        project = self.downsample
        return [*normed, *((None, None) if project is None else (project.weight, project.bias))]

    def masks(self, batch: int, form: Form) -> list[Tensor | None]:
        """What dropout multiplies the outputs of both convolutions by, drawn anew, if it drops any:
        `(batch, out)`, or `(batch, length, out)`.
        """
        if not self.dropout.training or self.dropout.p == 0:
            return [None, None]
        found: list[Tensor | None] = []
        for conv, length in ((self.conv1, form.middle), (self.conv2, form.length)):
            like = norm_of(conv)[0]
            if isinstance(self.dropout, nn.Dropout1d):
                found.append(self.dropout(like.new_ones(batch, conv.out_channels, 1)).squeeze(2))
            else:
                found.append(self.dropout(like.new_ones(batch, length, conv.out_channels)))
        return found


def causal_conv_relu(x: Tensor, conv: nn.Conv1d, dilation: int, stride: int, length: int) -> Tensor:
    """Convolve so that output t reads inputs <= t, and the last output stands at the last input;
    then ReLU.

    Args:
        x: `(batch, channels, time)`.
        conv: holds `weight` `(out, channels, kernel_size)` and `bias` `(out,)`.
        dilation: distance between taps.
        stride: distance between outputs.
        length: how many outputs.

    Returns:
        `(batch, out, length)`.
    """
    reach = (conv.kernel_size[0] - 1) * dilation
    first = x.shape[-1] - 1 - (length - 1) * stride
    # Less than no padding takes away what no output reads.
    padded = F.pad(x.unsqueeze(2), (reach - first, 0))
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
            Block(before, after, kernel_size, dropout, dropout_kind)
            for before, after in zip([width, *channels[:-1]], channels, strict=True)
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
        last = self.readout == "last"
        length = 1 if last else x.shape[1] - context
        x = x[:, -min(x.shape[1], length + self.receptive_field - 1) :]
        forms = self.forms(x.shape[1], length)
        h = x if self.embedding is None else self.embedding(x)
        blocks: list[Any] = list(self.blocks)
        weights = [block.weights() for block in blocks]
        directions = [value for block in weights for value in (block[1], block[4])]
        if tcn_cpu.pays(h, *directions):
            masks = [block.masks(len(x), form) for block, form in zip(blocks, forms, strict=True)]
            h = tcn_cpu.residual_blocks(h, forms, weights, masks)
        else:
            h = h.transpose(1, 2)
            for block, form in zip(blocks, forms, strict=True):
                h = block(h, form)
            h = h.transpose(1, 2)
        return self.output(h[:, -1] if last else h)

    def forms(self, time: int, length: int) -> list[Form]:
        """What each block is asked for.

        Args:
            time: of the first one's input.
            length: steps that are read of the last one, if not its last step alone is.
        """
        found: list[Form] = []
        if self.readout == "last":
            for _ in self.blocks:
                found.append(Form(1, 2, time, (time + 1) // 2))
                time = found[-1].length
            return found
        for i, reach in reversed(list(enumerate(self.reaches))):
            found.insert(0, Form(2**i, 1, min(time, length + reach // 2), length))
            length = min(time, length + reach)
        return found
