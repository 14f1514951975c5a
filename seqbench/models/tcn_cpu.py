"""A residual block of a TCN on a CPU, by compiled code of our own.

For these narrow convolutions torch pads the input, moves it into blocks and back, and gets four
fifths of what the processor can multiply; what stands around them, in bfloat16, takes as long as
they do. `tcn_cpu.cpp` reads sequences as they lie in memory, says how, and does the rest of a block
on the way. It is the same function up to rounding; under autocast what goes by the shortcut is
rounded to bfloat16, too, where torch leaves a float32 input as it is.
"""

import ctypes
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from seqbench.models.vectors import call, can_run, one_by_one, whole

SOURCE = Path(__file__).with_suffix(".cpp")


class Convolution(ctypes.Structure):
    """`Convolution` of the source."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("threads", "batch", "time", "inputs", "outputs")),
        *((name, ctypes.c_int64) for name in ("taps", "dilation", "stride", "length")),
        ("x", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("x_batch", "x_time", "linear")),
        *((name, ctypes.c_void_p) for name in ("direction", "magnitude", "bias", "packed", "mask")),
        *((name, ctypes.c_int64) for name in ("mask_batch", "mask_time")),
        *((name, ctypes.c_void_p) for name in ("y", "added")),
        *((name, ctypes.c_int64) for name in ("added_batch", "added_time")),
        ("total", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("total_batch", "total_time")),
        ("d_y", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("d_y_batch", "d_y_time")),
        *((name, ctypes.c_void_p) for name in ("d_added", "packed_back", "d_sum", "d_x")),
        ("d_shortcut", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("shortcut", "shortcut_stride")),
        *((name, ctypes.c_void_p) for name in ("d_weight", "d_direction", "d_magnitude", "d_bias")),
    )


class Form(NamedTuple):
    """Of a convolution: so many outputs, `stride` apart, the last of them at the last input."""

    dilation: int
    stride: int
    length: int


def pays(x: Tensor, *directions: Tensor) -> bool:
    """Whether convolutions, one after the other, can be run here, and are not faster by torch.

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
    # Not where much of a vector would stay empty.
    sizes = [len(weight) for weight in directions] + [x.shape[2]] * x.requires_grad
    return all(2 * whole(size, SOURCE, weight.dtype) <= 3 * size for size in sizes)


def under_autocast(x: Tensor) -> Tensor:
    """An input as products take it: where autocast says so, in fewer bits."""
    if torch.is_autocast_enabled("cpu"):
        return x.to(torch.get_autocast_dtype("cpu"))
    return x


class ResidualBlock(torch.autograd.Function):
    """Twice a causal convolution with weight norm, ReLU and dropout; what went in is added, and
    ReLU once more (Bai et al. 2018, section 3.3).
    """

    @staticmethod
    def forward(
        x: Tensor, forms: tuple[Form, Form], *weights: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run it.

        Args:
            x: `(batch, time, channels)`: bfloat16, or of the weights' dtype.
            forms: of both convolutions.
            weights: with a bfloat16 `x` float32, which are rounded to it. Of each convolution
                magnitude `(out, 1, 1)`, direction `(out, channels, kernel_size)`, bias `(out,)` and
                what dropout multiplies by, `(batch, out)` or `(batch, length, out)`, or `None`.
                Then, if `x` is to be projected before it is added, by which weight `(out, channels,
                1)` and bias.

        Returns:
            `(batch, length, out)`, of the dtype of `x`; then what both convolutions came to, with
            channels filled up to whole vectors.
        """
        x = in_order(x)
        y1, _ = convolve(x, forms[0], *weights[:4])
        added = at_outputs(x, forms[1])
        if len(weights) > 8:
            added, _ = convolve(added, projection(forms[1]), None, *weights[8:])
        y2, total = convolve(y1, forms[1], *weights[4:8], added=added)
        return total[..., : len(weights[5])], y1, y2

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep what the way back needs."""
        x, ctx.forms, *weights = inputs
        ctx.save_for_backward(x, *output, *weights)
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> Any:
        """Under `torch.vmap`: one after another."""
        return one_by_one(ResidualBlock, info.batch_size, in_dims, inputs)

    @staticmethod
    def backward(ctx: Any, d_total: Tensor | None, *inner: None) -> tuple[Tensor | None, ...]:
        """Carry gradients back.

        Args:
            ctx: of autograd.
            d_total: `(batch, length, out)`; `None`: zeros.
            inner: of what nobody differentiates.
        """
        x, total, y1, y2, *weights = ctx.saved_tensors
        if d_total is None:
            return (None,) * (2 + len(weights))
        rows, (first, second), wanted = in_order(x), ctx.forms, ctx.needs_input_grad[0]
        d_y1, d_added, *d_second = convolve_back(
            y1, y2, in_order(d_total), second, *weights[4:8], total=total
        )
        d_projected: list[Tensor] = []
        if len(weights) > 8:
            added = at_outputs(rows, second)
            d_added, _, _, *d_projected = convolve_back(
                added, None, d_added, projection(second), None, *weights[8:], wanted=wanted
            )
        d_x, _, *d_first = convolve_back(
            rows,
            y1,
            d_y1,
            first,
            *weights[:4],
            wanted=wanted,
            d_shortcut=d_added,
            shortcut_stride=second.stride,
        )
        d_x = d_x if d_x is None else d_x[..., : x.shape[2]]
        return d_x, None, *d_first, None, *d_second, None, *d_projected


def at_outputs(x: Tensor, form: Form) -> Tensor:
    """An input at those steps at which a convolution has its outputs."""
    return x[:, x.shape[1] - 1 - (form.length - 1) * form.stride :: form.stride]


def projection(form: Form) -> Form:
    """Of what is added to a convolution with this form: one tap at each output."""
    return Form(1, 1, form.length)


def convolve(
    x: Tensor,
    form: Form,
    magnitude: Tensor | None,
    direction: Tensor,
    bias: Tensor,
    mask: Tensor | None = None,
    *,
    added: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """A convolution, ReLU and dropout; and the same with something added, after ReLU. Without a
    magnitude: a linear convolution, of which the direction is the weight.
    """
    outputs, inputs, taps = direction.shape
    y = x.new_empty(len(x), form.length, whole(outputs, SOURCE, direction.dtype))
    total = None if added is None else torch.empty_like(y)
    call(
        SOURCE,
        "forward",
        x.dtype,
        Convolution,
        **what(x, form, magnitude, direction, mask),
        bias=bias.contiguous(),
        packed=direction.new_empty(taps, inputs, y.shape[2]),
        y=y,
        **rows("added", added),
        **rows("total", total),
    )
    return y, y if total is None else total


def convolve_back(
    x: Tensor,
    y: Tensor | None,
    d_y: Tensor,
    form: Form,
    magnitude: Tensor | None,
    direction: Tensor,
    bias: Tensor,
    mask: Tensor | None = None,
    *,
    wanted: bool = True,
    total: Tensor | None = None,
    d_shortcut: Tensor | None = None,
    shortcut_stride: int = 1,
) -> tuple[Any, ...]:
    """Gradients of a convolution's input (`None`, where it is not wanted), of what was added
    (`None`, where nothing was), of magnitude (`None`, where there is none), direction and bias.

    Args:
        x: its input.
        y: what came out; of a linear one, nothing.
        d_y: gradient of `total`, if something was added, or else of `y`; of a linear convolution
            with channels filled up to whole vectors.
        form: its form.
        magnitude: of its weights.
        direction: of its weights.
        bias: its bias.
        mask: its mask.
        wanted: whether the input's gradient is.
        total: after something was added.
        d_shortcut: to be added to the input's gradient at steps so far apart, up to the last one.
        shortcut_stride: how far.
    """
    outputs, inputs, taps = direction.shape
    full, in_full = (whole(size, SOURCE, direction.dtype) for size in (outputs, inputs))
    d_sum = d_y if y is None else torch.empty_like(y)
    d_added = None if total is None else torch.empty_like(d_sum)
    d_x = x.new_empty(*x.shape[:2], in_full) if wanted else None
    d_magnitude = None if magnitude is None else magnitude.new_empty(magnitude.shape)
    d_direction, d_bias = (value.new_empty(value.shape) for value in (direction, bias))
    call(
        SOURCE,
        "backward",
        x.dtype,
        Convolution,
        **what(x, form, magnitude, direction, mask),
        y=y,
        **rows("total", total),
        **rows("d_y", d_y),
        d_added=d_added,
        packed_back=direction.new_empty(taps, outputs, in_full) if wanted else None,
        d_sum=d_sum,
        d_x=d_x,
        d_shortcut=d_shortcut,
        shortcut=0 if d_shortcut is None else d_shortcut.shape[1],
        shortcut_stride=shortcut_stride,
        d_weight=direction.new_empty(taps, inputs, full),
        d_direction=d_direction,
        d_magnitude=d_magnitude,
        d_bias=d_bias,
    )
    return d_x, d_added, d_magnitude, d_direction, d_bias


def in_order(x: Tensor) -> Tensor:
    """With the channels of a step side by side, where they go in pairs an even number of them."""
    if x.dtype == torch.bfloat16 and x.shape[2] % 2:
        return F.pad(x, (0, 1))
    return x if x.stride(2) == 1 else x.contiguous()


def what(
    x: Tensor, form: Form, magnitude: Tensor | None, direction: Tensor, mask: Tensor | None
) -> dict[str, Any]:
    """What the source must know both ways."""
    outputs, inputs, taps = direction.shape
    return {
        "batch": x.shape[0],
        "time": x.shape[1],
        "inputs": inputs,
        "outputs": outputs,
        "taps": taps,
        "dilation": form.dilation,
        "stride": form.stride,
        "length": form.length,
        **rows("x", x),
        "linear": magnitude is None,
        "magnitude": None if magnitude is None else magnitude.contiguous(),
        "direction": direction.contiguous(),
        **rows("mask", mask if mask is None or mask.dim() == 3 else mask[:, None]),
    }


def rows(name: str, x: Tensor | None) -> dict[str, Any]:
    """Of `(batch, time, channels)`: where it is, and how far apart sequences and steps are; of one
    step, that it is for all.
    """
    if x is None:
        return {}
    steps = x.stride(1) if x.shape[1] > 1 else 0
    return {name: x, f"{name}_batch": x.stride(0), f"{name}_time": steps}
