"""Temporal convolutional network (Bai, Kolter, Koltun 2018, section 3).

A stack of residual blocks. Block i has two causal convolutions of dilation 2^i, so the receptive
field grows exponentially with depth.

With readout `last` and sequences of one length, only every 2^(i+1)-th output of block i is used,
counted back from the end.
Only those are computed: on their grid the dilation is one, and the second convolution of each block
has stride two. The function is the same (zero padding falls on the same positions), but all blocks
together compute about 3T positions, instead of 2T per block.

With readout `every` and a context, each convolution skips the outputs that no output after the
context depends on.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from seqbench import kernels
from seqbench.errors import ConfigError
from seqbench.kernels import BlockShape, BlockWeights
from seqbench.models.embedding import tie
from seqbench.models.sequence_model import SequenceModel, read_out
from seqbench.models.units import Place, Units, fewer
from seqbench.spec import Features, SequenceSpec

DropoutKind = Literal["channel", "element"]


class WeightNorm(nn.Module):
    """Weight normalisation: magnitude times direction per output (Salimans and Kingma 2016)."""

    def forward(self, magnitude: Tensor, direction: Tensor) -> Tensor:
        """Return the weight for a magnitude `(out, 1, 1)` and a direction `(out, in, taps)`."""
        return kernels.weight_norm(magnitude, direction)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the magnitude `(out, 1, 1)` of a weight, and the weight itself as direction."""
        return torch.norm_except_dim(weight, 2, 0), weight


def weight_norm(conv: nn.Conv1d) -> nn.Conv1d:
    """Apply weight normalisation to a convolution, in place, and return it."""
    register_parametrization(conv, "weight", WeightNorm(), unsafe=True)
    return conv


def magnitude_and_direction(conv: nn.Conv1d) -> tuple[Tensor, Tensor]:
    """Return the magnitude and direction of a convolution with weight normalisation."""
    parametrizations: Any = conv.parametrizations
    return parametrizations.weight.original0, parametrizations.weight.original1


class Block(nn.Module):
    """Two weight-normalised causal convolutions with a residual connection (section 3.3).

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: taps of each convolution.
        dropout: dropout probability after each convolution.
        dropout_kind: `channel` drops whole channels of a sequence (the paper); `element` drops
            single values (the released code).
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

    def weights(self, batch: int, shape: BlockShape) -> BlockWeights:
        """Return the block's parameters and, in training, newly drawn dropout masks.

        Args:
            batch: batch size.
            shape: the outputs that the block computes.
        """
        mask1 = self.mask(batch, shape.middle, self.conv1)
        mask2 = self.mask(batch, shape.length, self.conv2)
        project = self.downsample
        return BlockWeights(
            *magnitude_and_direction(self.conv1),
            cast(Tensor, self.conv1.bias),
            mask1,
            *magnitude_and_direction(self.conv2),
            cast(Tensor, self.conv2.bias),
            mask2,
            None if project is None else project.weight,
            None if project is None else project.bias,
        )

    def mask(self, batch: int, length: int, conv: nn.Conv1d) -> Tensor | None:
        """Draw a dropout mask, by which a convolution's output is multiplied.

        Returns:
            `(batch, out)` for dropout kind `channel`, `(batch, length, out)` for `element`; `None`
            in evaluation or at dropout 0.
        """
        if not self.dropout.training or self.dropout.p == 0:
            return None
        magnitude, _ = magnitude_and_direction(conv)
        if isinstance(self.dropout, nn.Dropout1d):
            return self.dropout(magnitude.new_ones(batch, conv.out_channels, 1)).squeeze(2)
        return self.dropout(magnitude.new_ones(batch, length, conv.out_channels))


class TCN(SequenceModel):
    """Temporal convolutional network.

    Args:
        spec: the problem's spec.
        channels: output channels of each block, first to last; block i has dilation 2^i.
        kernel_size: taps of each convolution, at least 2.
        dropout: dropout probability after each convolution.
        dropout_kind: `channel` (the paper) or `element` (the released code since 2018-04-16).
        embedding_dim: width of the token embedding; `None`: `channels[0]`. Real features enter the
            first block directly.
        tied: share the embedding's weight with the output layer; needs `embedding_dim` =
            `channels[-1]`.
        output_std: standard deviation of the output layer's initial weights, 0.01 in the paper;
            `None`: PyTorch's default.

    Raises:
        ConfigError: if a value is out of range or the sizes do not fit together.
    """

    skips_context = True
    takes_lengths = True

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
        if embedding_dim is not None and embedding_dim < 1:
            raise ConfigError(f"model.embedding_dim must be at least 1, not {embedding_dim}")
        if output_std is not None and output_std < 0:
            raise ConfigError(f"model.output_std must be at least 0, not {output_std}")
        self.embedding: nn.Embedding | None = None
        if isinstance(spec.input, Features):
            width = spec.input.dim
        else:
            width = embedding_dim or channels[0]
            self.embedding = nn.Embedding(spec.input.vocab_size, width)
        self.readout = spec.readout
        # Time steps by which each block, with its two convolutions, extends the receptive field.
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

    def forward(
        self, x: Tensor, state: None = None, context: int = 0, lengths: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """Map a sequence to logits or values.

        Args:
            x: `(batch, time)` int64 or `(batch, time, dim)` float.
            state: must be `None`.
            context: for readout `every`, number of leading steps whose outputs are skipped.
            lengths: see `SequenceModel.forward`.

        Returns:
            `(batch, out)` for readout `last` and `mean`, `(batch, time - context, out)` for
            `every`; and `None`, since a TCN has no state.
        """
        last = self.readout == "last" and lengths is None
        length = 1 if last else x.shape[1] - context
        x = x[:, -min(x.shape[1], length + sum(self.reaches)) :]
        h = self.features(x, self.shapes(x.shape[1], length, last=last))
        return self.output(read_out(h, self.readout, lengths)), None

    def features(self, x: Tensor, shapes: Sequence[BlockShape]) -> Tensor:
        """Return the outputs of the last block, `(batch, length, channels)`.

        Args:
            x: `(batch, time)` int64 or `(batch, time, dim)` float.
            shapes: the outputs that each block computes, as `shapes` returns them.
        """
        h = x if self.embedding is None else self.embedding(x)
        blocks: list[Any] = list(self.blocks)
        weights = [b.weights(len(x), shape) for b, shape in zip(blocks, shapes, strict=True)]
        return kernels.residual_blocks(h, weights, shapes)

    def shapes(self, time: int, length: int, *, last: bool) -> list[BlockShape]:
        """Return the outputs that each block computes, first block to last.

        Args:
            time: steps of the first block's input.
            length: last steps of the last block that are computed; ignored if `last`.
            last: only the last step is read.
        """
        found: list[BlockShape] = []
        if last:
            for _ in self.blocks:
                found.append(BlockShape(1, 2, time, (time + 1) // 2))
                time = found[-1].length
            return found
        for i, reach in reversed(list(enumerate(self.reaches))):
            found.insert(0, BlockShape(2**i, 1, min(time, length + reach // 2), length))
            length = min(time, length + reach)
        return found

    @classmethod
    def with_fewer_units(
        cls, spec: SequenceSpec, options: dict[str, Any], share: float
    ) -> dict[str, Any]:
        """Return options with fewer channels; see `SequenceModel.with_fewer_units`.

        Raises:
            ConfigError: if a shortcut adds the input features to the channels, or a block with
                another width than its input would get the same.
        """
        channels = list(options["channels"])
        width, is_real = options["embedding_dim"] or channels[0], False
        if isinstance(spec.input, Features):
            width, is_real = spec.input.dim, True
        widths = [width, *channels]
        groups = streams(widths, bool(options["tied"]))
        first = [i for i in range(len(widths)) if groups[i] == groups[0]]
        if is_real and len(first) > 1:
            raise ConfigError(
                f"--prune units: a shortcut adds the {width} input features to the channels of "
                f"block 0, so that they cannot be removed; --prune weights works"
            )
        kept = [width] if len(first) == 1 else [fewer(width, share)]
        kept += [fewer(width, share) for width in channels]
        for i, (before, after) in enumerate(pairwise(kept)):
            if before == after and widths[i] != widths[i + 1]:
                raise ConfigError(
                    f"--prune units={share:g} would leave block {i} with {after} channels, as many "
                    "as its input, and so without the layer in its shortcut: try another share"
                )
        embedding = {} if options["embedding_dim"] is None else {"embedding_dim": kept[0]}
        return options | {"channels": kept[1:]} | embedding

    def units(self) -> Sequence[Units]:
        """Return the channels inside each block, and those between blocks.

        Shortcuts without a layer add channels to channels: blocks that they join share a group.
        """
        blocks = cast(list[Block], self.blocks)
        embedding, tied = self.embedding, False
        if embedding is not None:
            tied = embedding.weight is self.output.weight
        widths = [blocks[0].conv1.in_channels, *(block.conv1.out_channels for block in blocks)]
        groups = streams(widths, tied)
        between: dict[int, list[Place]] = {group: [] for group in groups}
        if embedding is not None:
            between[groups[0]].append(Place("embedding.weight", 1))
        inside = []
        for i, block in enumerate(blocks):
            conv1, conv2, project = (f"blocks.{i}.{n}" for n in ("conv1", "conv2", "downsample"))
            convs = Place(f"{conv1}.weight"), Place(f"{conv1}.bias"), Place(f"{conv2}.weight", 1)
            inside.append(Units(f"channels inside block {i}", block.conv1.out_channels, convs))
            between[groups[i]].append(Place(f"{conv1}.weight", 1))
            between[groups[i + 1]] += [Place(f"{conv2}.weight"), Place(f"{conv2}.bias")]
            if block.downsample is not None:
                between[groups[i]].append(Place(f"{project}.weight", 1))
                between[groups[i + 1]] += [Place(f"{project}.weight"), Place(f"{project}.bias")]
        if not tied:
            between[groups[-1]].append(Place("output.weight", 1))
        if groups.count(groups[0]) == 1:  # the input's own width stays
            del between[groups[0]]
        return inside + [
            Units(f"channels after block {groups.index(group) - 1}", widths[group], places)
            for group, places in between.items()
        ]


def streams(widths: Sequence[int], tied: bool) -> list[int]:
    """Return the group of the first block's input and of each block's output, joined by shortcuts.

    Args:
        widths: channels of the input, and of the output of each block.
        tied: the input's channels are those that the output layer reads.

    Returns:
        For each of `widths`, the index of the first one whose channels are added to these.
    """
    groups = list(range(len(widths)))
    for i, (before, after) in enumerate(pairwise(widths)):
        if before == after:
            groups[i + 1] = groups[i]
    if tied:
        last = groups[-1]
        groups = [0 if group == last else group for group in groups]
    return groups
