"""Define `torch.ops.seqbench.residual_blocks`: all residual blocks of a TCN.

Its kernels are in csrc/residual_block.cpp. `tensors` holds the ten fields of `BlockWeights` for
each block, `shapes` the four of `BlockShape`. Lists of operators hold no `None`: absent tensors are
empty.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from seqbench.kernels import reference
from seqbench.kernels.build import library, padded
from seqbench.kernels.operators.transforms import differentiable_gradients, one_by_one
from seqbench.kernels.reference import BlockShape, BlockWeights
from seqbench.kernels.torch_private import custom_op


def blocks_of(
    tensors: Sequence[Tensor], shapes: Sequence[int]
) -> list[tuple[BlockWeights, BlockShape]]:
    """Return weights and shape of each block from the operators' flat lists."""
    return [
        (
            BlockWeights(*(None if t.numel() == 0 else t for t in tensors[10 * i : 10 * i + 10])),  # type: ignore[arg-type]
            BlockShape(*shapes[4 * i : 4 * i + 4]),
        )
        for i in range(len(shapes) // 4)
    ]


@custom_op("residual_blocks")
def residual_blocks(
    x: Tensor, tensors: list[Tensor], shapes: list[int], save: bool
) -> list[Tensor]:
    """Return the output, and if `save` the tensors that backward needs.

    `x` has the weights' dtype, or is bfloat16 with float32 weights. The output comes first; then
    follow each block's two convolution outputs and its sum. The last block's sum is the output, and
    is not repeated. Saved tensors have their channels padded to whole vectors.
    """
    outputs = empty_outputs(x, tensors, shapes)
    kernels = library("residual_block", x.dtype)
    h = contiguous_channels(x)
    for (weights, shape), (y1, y2, total) in zip(blocks_of(tensors, shapes), outputs, strict=True):
        kernels.call(
            "residual_block_forward",
            "ResidualBlock",
            **block_fields(h, weights, shape, y1, y2, total),
        )
        h = total
    *_, (_, _, y) = outputs
    return [y, *[t for block in outputs for t in block][:-1]] if save else [y]


def empty_outputs(
    x: Tensor, tensors: Sequence[Tensor], shapes: Sequence[int]
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return uninitialized outputs of each block's two convolutions and of the block."""
    found = []
    blocks = blocks_of(tensors, shapes)
    for i, (weights, shape) in enumerate(blocks):
        hidden, out, dtype = len(weights.bias1), len(weights.bias2), weights.bias1.dtype
        y2 = x.new_empty(len(x), shape.length, padded("residual_block", out, dtype))
        total = (
            x.new_empty(len(x), shape.length, out)
            if i + 1 == len(blocks)
            else y2.new_empty(y2.shape)
        )
        found.append(
            (x.new_empty(len(x), shape.middle, padded("residual_block", hidden, dtype)), y2, total)
        )
    return found


def block_fields(
    x: Tensor, weights: BlockWeights, shape: BlockShape, y1: Tensor, y2: Tensor, total: Tensor
) -> dict[str, Any]:
    """Return the fields of the kernel's arguments that a block's forward and backward share."""
    names = [name for name in BlockWeights._fields if not name.startswith("mask")]
    hidden, inputs, taps = weights.direction1.shape
    fields: dict[str, Any] = {
        name: None if (value := getattr(weights, name)) is None else value.contiguous()
        for name in names
    }
    for name, value in (
        ("x", x),
        ("total", total),
        ("mask1", weights.mask1),
        ("mask2", weights.mask2),
    ):
        fields |= strided(name, value)
    return (
        fields
        | shape._asdict()
        | {
            "batch": len(x),
            "time": x.shape[1],
            "inputs": inputs,
            "hidden": hidden,
            "outputs": len(weights.bias2),
            "taps": taps,
            "y1": y1,
            "y2": y2,
        }
    )


def strided(name: str, x: Tensor | None) -> dict[str, Any]:
    """Return the fields of a tensor and its strides.

    Args:
        name: name of the tensor's field.
        x: `(batch, steps, channels)`, or `(batch, channels)` for all steps; `None`: no fields.
    """
    if x is None:
        return {}
    x = x if x.stride(-1) == 1 else x.contiguous()
    step = x.stride(1) if x.dim() == 3 else 0
    return {name: x, f"{name}_batch": x.stride(0), f"{name}_time": step}


def contiguous_channels(x: Tensor) -> Tensor:
    """Return `x` with contiguous channels; in bfloat16 padded to an even number, for pairs."""
    if x.dtype == torch.bfloat16 and x.shape[2] % 2:
        return F.pad(x, (0, 1))
    return x if x.stride(2) == 1 else x.contiguous()


@residual_blocks.register_fake
def _(x: Tensor, tensors: list[Tensor], shapes: list[int], save: bool) -> list[Tensor]:
    outputs = [t for block in empty_outputs(x, tensors, shapes) for t in block]
    return [outputs[-1], *outputs[:-1]] if save else [outputs[-1]]


@custom_op("residual_blocks_backward")
def residual_blocks_backward(
    d_y: Tensor,
    x: Tensor,
    tensors: list[Tensor],
    shapes: list[int],
    saved: list[Tensor],
    first: int,
    x_wanted: bool,
) -> list[Tensor]:
    """Return the gradients of `x` and `tensors`; those that are not needed are empty.

    Args:
        d_y: gradient of the output.
        x: the input.
        tensors: as in `residual_blocks`.
        shapes: as in `residual_blocks`.
        saved: two convolution outputs and the sum of each block.
        first: index of the first block that needs gradients.
        x_wanted: True if `x` needs a gradient.
    """
    found = empty_gradients(x, tensors, first, x_wanted)
    kernels = library("residual_block", x.dtype)
    blocks = blocks_of(tensors, shapes)
    d = d_y if d_y.stride(2) == 1 else d_y.contiguous()
    for i in range(len(blocks) - 1, first - 1, -1):
        weights, shape = blocks[i]
        h = saved[3 * i - 1] if i else contiguous_channels(x)
        fields = block_fields(h, weights, shape, *saved[3 * i : 3 * i + 3])
        for name, gradient in zip(BlockWeights._fields, found[10 * i + 1 :], strict=False):
            if gradient.numel():
                fields[f"d_{name}"] = gradient
        d_x = None
        if i > first or x_wanted:
            d_x = x.new_empty(
                *h.shape[:2], padded("residual_block", fields["inputs"], weights.bias1.dtype)
            )
        kernels.call(
            "residual_block_backward", "ResidualBlock", **fields, **strided("d_total", d), d_x=d_x
        )
        if d_x is not None:
            d = d_x
    if x_wanted:
        found[0].copy_(d[..., : x.shape[2]])
    return found


def empty_gradients(
    x: Tensor, tensors: Sequence[Tensor], first: int, x_wanted: bool
) -> list[Tensor]:
    """Return uninitialized gradients; those of masks, and of blocks before `first`, are empty."""
    masks = (BlockWeights._fields.index("mask1"), BlockWeights._fields.index("mask2"))
    return [
        x.new_empty(x.shape if x_wanted else 0),
        *(
            t.new_empty(0 if i < 10 * first or i % 10 in masks else t.shape)
            for i, t in enumerate(tensors)
        ),
    ]


@residual_blocks_backward.register_fake
def _(d_y: Tensor, x: Tensor, tensors: list[Tensor], *others: Any) -> list[Tensor]:
    *_, first, x_wanted = others
    return empty_gradients(x, tensors, first, x_wanted)


def setup_context(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    """Save tensors for backward."""
    x, tensors, ctx.shapes, _ = inputs
    y, *kept = output
    ctx.save_for_backward(x, *tensors, *kept, y)
    ctx.count = len(tensors)
    ctx.mark_non_differentiable(*kept)
    ctx.set_materialize_grads(False)


def backward(ctx: Any, d_outputs: list[Tensor | None]) -> tuple[Any, ...]:
    """Return the gradients of the inputs; masks are constants."""
    x, *others = ctx.saved_tensors
    tensors, saved = others[: ctx.count], others[ctx.count :]
    d_y = d_outputs[0]
    if d_y is None:
        return None, [None] * ctx.count, None, None
    if torch.is_grad_enabled():

        def function(x: Tensor, *tensors: Tensor) -> list[Tensor]:
            for weights, shape in blocks_of(tensors, ctx.shapes):
                x = reference.residual_block(x, weights, shape)
            return [x]

        d_x, *gradients = differentiable_gradients(function, (x, *tensors), [d_y])
        return d_x, gradients, None, None
    x_wanted, wanted, *_ = ctx.needs_input_grad
    first = 0 if x_wanted else wanted.index(True) // 10
    d_x, *gradients = residual_blocks_backward(d_y, x, tensors, ctx.shapes, saved, first, x_wanted)
    return (
        d_x if x_wanted else None,
        [g if w and g.numel() else None for g, w in zip(gradients, wanted, strict=True)],
        None,
        None,
    )


residual_blocks.register_autograd(backward, setup_context=setup_context)
residual_blocks.register_vmap(one_by_one(residual_blocks))
