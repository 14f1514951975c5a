"""The layers of a LLaMA decoder that are no products, on a CPU, by compiled code of our own.

Torch makes SwiGLU and RMSNorm of single operations, each of which reads and writes whole tensors;
`llama_cpu.cpp` goes through memory once. They are the same functions up to rounding.
"""

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqbench.models.vectors import call, can_run, one_by_one

SOURCE = Path(__file__).with_suffix(".cpp")
# Rows that add up their gradients of the weights: not by thread, so that any number gives the same.
PIECE = 64


class Gate(ctypes.Structure):
    """`Gate` of the source."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("threads", "size")),
        *((name, ctypes.c_void_p) for name in ("gate", "up", "y", "d_y", "d_gate", "d_up")),
    )


class Norm(ctypes.Structure):
    """`Norm` of the source."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("threads", "count", "width", "piece")),
        ("eps", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("x", "weight", "y", "scale")),
        *((name, ctypes.c_void_p) for name in ("d_y", "d_x", "d_weight")),
    )


def pays(x: Tensor, other: Tensor) -> bool:
    """Whether something can be run here, and is large enough to make up for the call."""
    return x.numel() >= 2**14 and x.shape[-1] == other.shape[-1] and can_run(SOURCE, x, other)


class SwigluFunction(torch.autograd.Function):
    """`silu(gate) * up`."""

    @staticmethod
    def forward(gate: Tensor, up: Tensor) -> Tensor:
        """Of two tensors of one shape."""
        gate, up = gate.contiguous(), up.contiguous()
        y = torch.empty_like(gate)
        fields = {"size": gate.numel(), "gate": gate, "up": up, "y": y}
        call(SOURCE, "Gate_forward", gate.dtype, Gate, **fields)
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """Keep what the way back needs."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
        """Under `torch.vmap`: one after another."""
        return one_by_one(SwigluFunction.apply, info.batch_size, in_dims, inputs)

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor, Tensor]:
        """Carry gradients back."""
        gate, up = (value.contiguous() for value in ctx.saved_tensors)
        d_gate, d_up = torch.empty_like(gate), torch.empty_like(up)
        call(
            SOURCE,
            "Gate_backward",
            gate.dtype,
            Gate,
            size=gate.numel(),
            gate=gate,
            up=up,
            d_y=d_y.contiguous(),
            d_gate=d_gate,
            d_up=d_up,
        )
        return d_gate, d_up


class RmsNormFunction(torch.autograd.Function):
    """RMSNorm over the last dimension."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """Normalise.

        Args:
            x: `(..., dim)`.
            weight: `(dim,)`.
            eps: added to the mean square.

        Returns:
            As `x`; and one over the root of each mean square, `(...)`, without a gradient.
        """
        x = x.contiguous()
        y, scale = torch.empty_like(x), x.new_empty(x.shape[:-1])
        call(
            SOURCE,
            "Norm_forward",
            x.dtype,
            Norm,
            count=scale.numel(),
            width=x.shape[-1],
            eps=eps,
            x=x,
            weight=weight.contiguous(),
            y=y,
            scale=scale,
        )
        return y, scale

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Tensor, Tensor, float], output: tuple[Tensor, Tensor]
    ) -> None:
        """Keep what the way back needs."""
        x, weight, _ = inputs
        _, scale = output
        ctx.mark_non_differentiable(scale)
        ctx.save_for_backward(x, weight, scale)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Any, Any]:
        """Under `torch.vmap`: one after another."""
        return one_by_one(RmsNormFunction.apply, info.batch_size, in_dims, inputs)

    @staticmethod
    def backward(ctx: Any, d_y: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None]:
        """Carry gradients back."""
        x, weight, scale = (value.contiguous() for value in ctx.saved_tensors)
        count, width = scale.numel(), x.shape[-1]
        d_x, d_weight = torch.empty_like(x), x.new_empty(-(-count // PIECE), width)
        call(
            SOURCE,
            "Norm_backward",
            x.dtype,
            Norm,
            piece=PIECE,
            count=count,
            width=width,
            x=x,
            weight=weight,
            scale=scale,
            d_y=d_y.contiguous(),
            d_x=d_x,
            d_weight=d_weight,
        )
        return d_x, d_weight.sum(0), None
