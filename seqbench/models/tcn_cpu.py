"""The residual blocks of a TCN on a CPU, by compiled code of our own.

For these narrow convolutions torch pads the input, moves it into blocks and back, and gets four
fifths of what the processor can multiply; what stands around them, in bfloat16, takes as long as
they do. `tcn_cpu.cpp` reads sequences as they lie in memory, says how, and does the rest of a block
on the way. It is the same function up to rounding; under autocast what goes by the shortcut is
rounded to bfloat16, too, where torch leaves a float32 input as it is.
"""

from array import array
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from seqbench.models.vectors import can_run, one_by_one, run, whole

SOURCE = Path(__file__).with_suffix(".cpp")


class Form(NamedTuple):
    """Of a block: the distance between taps, and `middle` outputs of the first convolution and
    `length` of the second, the latter `stride` apart; the last of both stands at the last input.
    """

    dilation: int
    stride: int
    middle: int
    length: int


def pays(x: Tensor, *directions: Tensor) -> bool:
    """Whether convolutions, one after the other, can be run here, and all in all are not faster by
    torch.

    Args:
        x: `(batch, time, channels)`.
        directions: of the weights of each, `(out, channels, kernel_size)`.
    """
    weight, *_ = directions
    if not can_run(SOURCE, *directions, autocast=True) or x.device != weight.device:
        return False
    halved = torch.is_autocast_enabled("cpu")
    if halved and torch.get_autocast_dtype("cpu") != torch.bfloat16:
        return False
    kinds = {torch.float32, torch.bfloat16} if halved else {weight.dtype}
    if x.shape[2] != weight.shape[1] or x.dtype not in kinds:
        return False  # torch says what is wrong
    if halved and weight.dtype != torch.float32:
        return False
    # Processors that multiply whole matrices of bfloat16 do that for torch.
    if halved and torch.cpu._is_amx_tile_supported():
        return False
    # Not where much of most vectors would stay empty.
    done = asked = 0
    for i, (outputs, inputs, _) in enumerate(direction.shape for direction in directions):
        back = i > 0 or x.requires_grad
        done += whole(outputs, SOURCE, weight.dtype) * inputs
        done += whole(inputs, SOURCE, weight.dtype) * outputs * back
        asked += outputs * inputs * (1 + back)
    return 2 * done <= 3 * asked


def residual_blocks(
    x: Tensor,
    forms: Sequence[Form],
    weights: Sequence[Sequence[Tensor | None]],
    masks: Sequence[Sequence[Tensor | None]],
) -> Tensor:
    """Blocks one after the other, under autocast in its dtype; see `ResidualBlocks`.

    Args:
        x: `(batch, time, channels)`.
        forms: of each block.
        weights: of each block magnitude, direction and bias of both convolutions, then weight and
            bias of the projection, or twice `None`.
        masks: of each block what dropout multiplies both by, or `None`.

    Returns:
        `(batch, length, out)`.
    """
    if torch.is_autocast_enabled("cpu"):
        x = x.to(torch.get_autocast_dtype("cpu"))
    given: list[Tensor | None] = []
    for block, (one, other) in zip(weights, masks, strict=True):
        given += [*block[:3], one, *block[3:6], other, *block[6:]]
    found: tuple[Tensor, ...] = ResidualBlocks.apply(x, forms, torch.is_grad_enabled(), *given)
    return found[0]


class Weights(NamedTuple):
    """Of a convolution and what dropout multiplies it by; or of a projection, which has neither
    magnitude nor mask. `direction`: `(out, channels, kernel_size)`.
    """

    magnitude: Tensor | None
    direction: Tensor | None
    bias: Tensor | None
    mask: Tensor | None = None

    def filled_up(self, *, inputs: bool = False) -> int:
        """Its outputs, or its inputs, filled up to whole vectors."""
        assert self.direction is not None
        return whole(self.direction.shape[int(inputs)], SOURCE, self.direction.dtype)

    def gradients(self) -> list[Tensor | None]:
        """Room for those of magnitude, direction and bias."""
        return [None if value is None else torch.empty_like(value) for value in self[:3]]

    def layer(
        self,
        y: Tensor | None,
        d_sum: Tensor | None = None,
        d_x: Tensor | None = None,
        gradients: Sequence[Tensor | None] = (None,) * 3,
    ) -> list[int]:
        """With what goes in and out; `Layer` of the source."""
        return [
            *addresses(*self[:3]),
            *rows(self.mask),
            *addresses(y, d_sum, d_x, *gradients),
        ]


def addresses(*tensors: Tensor | None) -> list[int]:
    """Where they begin, or zero."""
    return [0 if x is None else x.data_ptr() for x in tensors]


def rows(x: Tensor | None) -> tuple[int, int, int]:
    """Where it begins, and how far apart sequences and steps are; `Rows` of the source.

    Args:
        x: `(batch, time, channels)`; or `(batch, channels)`, the same at each step; or `None`.
    """
    if x is None:
        return 0, 0, 0
    return x.data_ptr(), x.stride(0), x.stride(1) if x.dim() == 3 else 0


def blocks_of(weights: Sequence[Tensor | None]) -> Iterator[tuple[Weights, Weights, Weights]]:
    """Of each block both convolutions and the projection, as they lie in memory in order."""
    for i in range(0, len(weights), 10):
        block = [None if value is None else value.contiguous() for value in weights[i : i + 10]]
        yield Weights(*block[:4]), Weights(*block[4:8]), Weights(None, *block[8:])


class ResidualBlocks(torch.autograd.Function):
    """One after the other. Each: twice a causal convolution with weight norm, ReLU and dropout;
    what went in is added, and ReLU once more (Bai et al. 2018, section 3.3).
    """

    @staticmethod
    def forward(x: Tensor, forms: Sequence[Form], keep: bool, *weights: Any) -> tuple[Tensor, ...]:
        """Run them.

        Args:
            x: `(batch, time, channels)`: bfloat16, or of the weights' dtype.
            forms: of each block.
            keep: whether there may be a way back.
            weights: of each block ten; with a bfloat16 `x` float32, which are rounded to it. Of
                both convolutions magnitude `(out, 1, 1)`, direction `(out, channels, kernel_size)`,
                bias `(out,)` and what dropout multiplies by, `(batch, out)` or `(batch, length,
                out)`, or `None`. Then, if what went in is projected before it is added, by which
                weight `(out, channels, 1)` and bias, or twice `None`.

        Returns:
            `(batch, length, out)`, of the dtype of `x`; then, to keep, of each block what both
            convolutions came to and, but for the last, their sum with what was added, with channels
            filled up to whole vectors.
        """
        x, kept = in_order(x), []
        for form, (first, second, projection) in zip(forms, blocks_of(weights), strict=True):
            y1 = x.new_empty(len(x), form.middle, first.filled_up())
            y2 = x.new_empty(len(x), form.length, second.filled_up())
            total = torch.empty_like(y2)
            projected = None if projection.direction is None else torch.empty_like(y2)
            layers = (first.layer(y1), second.layer(y2), projection.layer(projected))
            call("forward", x, form, first, second, layers, total)
            x = total
            if keep:
                kept += [y1, y2, total]
        return x[..., : weights[-4].shape[0]], *kept[:-1]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep what the way back needs."""
        x, ctx.forms, _, *weights = inputs
        ctx.save_for_backward(x, *output, *weights)
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> Any:
        """Under `torch.vmap`: one model after another, each of which keeps what it needs."""

        def output(*given: Any) -> Any:
            return ResidualBlocks.apply(*given)[0]

        found, dim = one_by_one(output, info.batch_size, in_dims, inputs)
        return (found,), (dim,)

    @staticmethod
    def backward(ctx: Any, d_last: Tensor | None, *inner: None) -> tuple[Tensor | None, ...]:
        """Carry gradients back.

        Args:
            ctx: of autograd.
            d_last: `(batch, length, out)`; `None`: zeros.
            inner: of what nobody differentiates.
        """
        x, last, *others = ctx.saved_tensors
        split = 3 * len(ctx.forms) - 1
        kept, weights = [*others[:split], last], others[split:]
        if d_last is None:
            return (None,) * (3 + len(weights))
        d_x: Tensor | None = d_last if d_last.stride(2) == 1 else d_last.contiguous()
        inputs = [in_order(x), *kept[2:-1:3]]
        gradients: list[Tensor | None] = []
        for i, block in reversed(list(enumerate(blocks_of(weights)))):
            if d_x is None:  # nobody asks for what is before
                gradients = [*[None] * 10, *gradients]
                continue
            wanted = any(ctx.needs_input_grad[: 3 + 10 * i])
            d_x, *found = back(inputs[i], ctx.forms[i], block, kept[3 * i : 3 * i + 3], d_x, wanted)
            gradients = [*found, *gradients]
        return None if d_x is None else d_x[..., : x.shape[2]], None, None, *gradients


def back(
    x: Tensor,
    form: Form,
    block: tuple[Weights, Weights, Weights],
    kept: Sequence[Tensor],
    d_total: Tensor,
    wanted: bool,
) -> tuple[Tensor | None, ...]:
    """Gradients of a block's input, if it is wanted, and of its weights, in their order.

    Args:
        x: its input.
        form: its form.
        block: its weights.
        kept: what both convolutions came to, and their sum with what was added.
        d_total: gradient of that.
        wanted: whether the input's gradient is.
    """
    (first, second, projection), (y1, y2, total) = block, kept
    inputs, d_x, d_projected = first.filled_up(inputs=True), None, None
    if wanted:
        d_x = x.new_empty(*x.shape[:2], inputs)
        if projection.direction is not None:
            d_projected = x.new_empty(len(x), form.length, inputs)
    d_sum1, d_sum2, d_added = torch.empty_like(y1), torch.empty_like(y2), torch.empty_like(y2)
    d_first, d_second, d_projection = (layer.gradients() for layer in (first, second, projection))
    layers = (
        first.layer(y1, d_sum1, d_x, d_first),
        second.layer(y2, d_sum2, None, d_second),
        projection.layer(None, d_added, d_projected, d_projection),
    )
    call("backward", x, form, first, second, layers, total, d_total)
    return d_x, *d_first, None, *d_second, None, *d_projection[1:]


def call(
    name: str,
    x: Tensor,
    form: Form,
    first: Weights,
    second: Weights,
    layers: tuple[list[int], list[int], list[int]],
    total: Tensor,
    d_total: Tensor | None = None,
) -> None:
    """Call a function of the source on a block."""
    assert first.direction is not None
    assert second.direction is not None
    hidden, inputs, taps = first.direction.shape
    sizes = (*x.shape[:2], inputs, hidden, len(second.direction), taps, *form)
    values = array("q", (torch.get_num_threads(), *sizes, *chain(*layers)))  # `Block` of the source
    values.extend((*rows(x), *rows(total), *rows(d_total)))
    run(SOURCE, name, x.dtype, values.buffer_info()[0])


def in_order(x: Tensor) -> Tensor:
    """With the channels of a step side by side, where they go in pairs an even number of them."""
    if x.dtype == torch.bfloat16 and x.shape[2] % 2:
        return F.pad(x, (0, 1))
    return x if x.stride(2) == 1 else x.contiguous()
