"""A causal convolution followed by ReLU on a CPU, by compiled code of our own.

For the narrow convolutions of a TCN torch pads the input, moves it into blocks and back, and gets
four fifths of what the processor can multiply. `convolution_cpu.cpp` reads sequences as they lie in
memory, says how, and is the same function up to rounding.
"""

import ctypes
from pathlib import Path
from typing import Any

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
        *((name, ctypes.c_int64) for name in ("x_batch", "x_time")),
        *((name, ctypes.c_void_p) for name in ("weight", "bias", "packed", "y", "d_y")),
        *((name, ctypes.c_int64) for name in ("d_y_batch", "d_y_time")),
        *((name, ctypes.c_void_p) for name in ("packed_back", "d_sum", "d_x")),
        *((name, ctypes.c_void_p) for name in ("d_weight", "d_bias", "d_sum_pairs", "x_pairs")),
    )


def pays(x: Tensor, weight: Tensor) -> bool:
    """Whether a convolution can be run here, and is not faster by torch.

    Args:
        x: `(batch, time, channels)`.
        weight: `(out, channels, kernel_size)`.
    """
    outputs, inputs, _ = weight.shape
    real = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    if x.shape[2] != inputs or x.device != weight.device or sums(real) != weight.dtype:
        return False  # torch says what is wrong
    if not can_run(SOURCE, weight, autocast=True):
        return False
    # Processors that multiply whole matrices of bfloat16 do that for torch.
    if real == torch.bfloat16 and torch.cpu._is_amx_tile_supported():
        return False
    # Not where much of a vector would stay empty.
    rows = (outputs, inputs) if x.requires_grad else (outputs,)
    return all(2 * whole(size, SOURCE, weight.dtype) <= 3 * size for size in rows)


def under_autocast(x: Tensor) -> Tensor:
    """An input as products take it: where autocast says so, in fewer bits."""
    if torch.is_autocast_enabled("cpu"):
        return x.to(torch.get_autocast_dtype("cpu"))
    return x


def sums(real: torch.dtype) -> torch.dtype:
    """What products of such numbers are summed in; weights and their gradients are of it, too."""
    return torch.float32 if real == torch.bfloat16 else real


class ConvolutionRelu(torch.autograd.Function):
    """ReLU of a causal convolution."""

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor, dilation: int, stride: int, length: int
    ) -> Tensor:
        """Run it.

        Args:
            x: `(batch, time, channels)`: bfloat16, or of the weight's dtype.
            weight: `(out, channels, kernel_size)`: with a bfloat16 `x` float32, rounded to it.
            bias: `(out,)`.
            dilation: distance between taps.
            stride: steps from one output to the next.
            length: outputs; the last one stands at the last input.

        Returns:
            `(batch, length, out)`, of the dtype of `x`.
        """
        x, weight = in_order(x), weight.contiguous()
        outputs, inputs, taps = weight.shape
        y = x.new_empty(len(x), length, whole(outputs, SOURCE, weight.dtype))
        call(
            SOURCE,
            "forward",
            x.dtype,
            Convolution,
            **sizes(x, weight, dilation, stride, length),
            weight=weight,
            bias=bias.contiguous(),
            packed=weight.new_empty(taps, inputs, y.shape[2]),
            y=y,
        )
        return y[..., :outputs]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep what the way back needs."""
        x, weight, _, *ctx.form = inputs
        ctx.save_for_backward(x, weight, output)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
        """Under `torch.vmap`: one after another."""
        return one_by_one(ConvolutionRelu, info.batch_size, in_dims, inputs)

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:
        """Carry gradients back.

        Args:
            ctx: of autograd.
            d_y: `(batch, length, out)`.
        """
        x, weight, y = ctx.saved_tensors
        x, weight, d_y = in_order(x), weight.contiguous(), in_order(d_y)
        outputs, inputs, taps = weight.shape
        full, in_full = (whole(size, SOURCE, weight.dtype) for size in (outputs, inputs))
        d_sum = x.new_empty(*y.shape[:2], full)
        d_weight, d_bias = weight.new_empty(taps, inputs, full), weight.new_empty(full)
        wanted, (_, stride, length) = ctx.needs_input_grad[0], ctx.form
        d_x = x.new_empty(*x.shape[:2], in_full) if wanted else None
        pairs = x.dtype == torch.bfloat16  # two of them lie in one float
        call(
            SOURCE,
            "backward",
            x.dtype,
            Convolution,
            **sizes(x, weight, *ctx.form),
            weight=weight,
            y=y,
            d_y=d_y,
            d_y_batch=d_y.stride(0),
            d_y_time=d_y.stride(1),
            packed_back=weight.new_empty(taps, outputs, in_full) if wanted else None,
            d_sum=d_sum,
            d_x=d_x,
            d_weight=d_weight,
            d_bias=d_bias,
            d_sum_pairs=weight.new_empty(len(x), (length + 1) // 2, full) if pairs else None,
            x_pairs=weight.new_empty(len(x), stride + x.shape[1], in_full) if pairs else None,
        )
        return (
            d_x if d_x is None else d_x[..., :inputs],
            d_weight[..., :outputs].permute(2, 1, 0),
            d_bias[:outputs],
            None,
            None,
            None,
        )


def in_order(x: Tensor) -> Tensor:
    """With the channels of a step side by side, where they go in pairs an even number of them."""
    if x.dtype == torch.bfloat16 and x.shape[2] % 2:
        return F.pad(x, (0, 1))
    return x if x.stride(2) == 1 else x.contiguous()


def sizes(x: Tensor, weight: Tensor, dilation: int, stride: int, length: int) -> dict[str, Any]:
    """What the source must know of the input's form and the convolution's."""
    outputs, inputs, taps = weight.shape
    return {
        "batch": x.shape[0],
        "time": x.shape[1],
        "inputs": inputs,
        "outputs": outputs,
        "taps": taps,
        "dilation": dilation,
        "stride": stride,
        "length": length,
        "x": x,
        "x_batch": x.stride(0),
        "x_time": x.stride(1),
    }
