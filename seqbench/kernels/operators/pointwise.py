"""Define `torch.ops.seqbench.swiglu`, `rms_norm` and `linear`.

The kernels of the first two are in csrc/pointwise.cpp; oneDNN computes the third.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from seqbench.kernels import reference, torch_private
from seqbench.kernels.build import library
from seqbench.kernels.operators.transforms import differentiable_gradients, one_by_one
from seqbench.kernels.torch_private import custom_op


def save_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Save the inputs for backward."""
    ctx.save_for_backward(*inputs)


@custom_op("swiglu")
def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Return `silu(gate) * up`; both have the same shape."""
    output = gate.new_empty(gate.shape)
    library("pointwise", gate.dtype).call(
        "swiglu_forward",
        "Swiglu",
        size=gate.numel(),
        gate=gate.contiguous(),
        up=up.contiguous(),
        output=output,
    )
    return output


@swiglu.register_fake
def _(gate: Tensor, up: Tensor) -> Tensor:
    return gate.new_empty(gate.shape)


@custom_op("swiglu_backward")
def swiglu_backward(d_output: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of `gate` and `up`."""
    d_gate, d_up = gate.new_empty(gate.shape), up.new_empty(up.shape)
    library("pointwise", gate.dtype).call(
        "swiglu_backward",
        "Swiglu",
        size=gate.numel(),
        gate=gate.contiguous(),
        up=up.contiguous(),
        d_output=d_output.contiguous(),
        d_gate=d_gate,
        d_up=d_up,
    )
    return d_gate, d_up


@swiglu_backward.register_fake
def _(d_output: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    return gate.new_empty(gate.shape), up.new_empty(up.shape)


def backpropagate_swiglu(ctx: Any, d_output: Tensor) -> tuple[Tensor | None, ...]:
    """Return the gradients of the inputs."""
    inputs = ctx.saved_tensors
    if torch.is_grad_enabled():
        function = lambda *x: [reference.swiglu(*x)]  # noqa: E731
        return tuple(differentiable_gradients(function, inputs, [d_output]))
    return swiglu_backward(d_output, *inputs)


swiglu.register_autograd(backpropagate_swiglu, setup_context=save_inputs)
swiglu.register_vmap(one_by_one(swiglu))


@custom_op("rms_norm")
def rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return the normalized `x` and, for backward, one over the root mean square of each row."""
    output, inverse_rms = x.new_empty(x.shape), x.new_empty(x.shape[:-1])
    library("pointwise", x.dtype).call(
        "rms_norm_forward",
        "RmsNorm",
        rows=inverse_rms.numel(),
        width=x.shape[-1],
        eps=eps,
        x=x.contiguous(),
        weight=weight.contiguous(),
        output=output,
        inverse_rms=inverse_rms,
    )
    return output, inverse_rms


@rms_norm.register_fake
def _(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape[:-1])


@custom_op("rms_norm_backward")
def rms_norm_backward(
    d_output: Tensor, x: Tensor, weight: Tensor, inverse_rms: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradients of `x` and `weight`."""
    d_x, d_weight = x.new_empty(x.shape), weight.new_empty(weight.shape)
    library("pointwise", x.dtype).call(
        "rms_norm_backward",
        "RmsNorm",
        rows=inverse_rms.numel(),
        width=x.shape[-1],
        x=x.contiguous(),
        weight=weight.contiguous(),
        inverse_rms=inverse_rms.contiguous(),
        d_output=d_output.contiguous(),
        d_x=d_x,
        d_weight=d_weight,
    )
    return d_x, d_weight


@rms_norm_backward.register_fake
def _(d_output: Tensor, x: Tensor, weight: Tensor, inverse_rms: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), weight.new_empty(weight.shape)


def setup_rms_norm(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    """Save tensors for backward."""
    x, weight, ctx.eps = inputs
    _, inverse_rms = output
    ctx.mark_non_differentiable(inverse_rms)
    ctx.save_for_backward(x, weight, inverse_rms)


def backpropagate_rms_norm(ctx: Any, d_output: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    """Return the gradients of the inputs."""
    x, weight, inverse_rms = ctx.saved_tensors
    if torch.is_grad_enabled():
        function = lambda x, weight: [reference.rms_norm(x, weight, ctx.eps)]  # noqa: E731
        return *differentiable_gradients(function, (x, weight), [d_output]), None
    return *rms_norm_backward(d_output, x, weight, inverse_rms), None


rms_norm.register_autograd(backpropagate_rms_norm, setup_context=setup_rms_norm)
rms_norm.register_vmap(one_by_one(rms_norm))


@custom_op("linear")
def linear(x: Tensor, weight: Tensor) -> Tensor:
    """Return `x W^T`, of `(..., in)` and `(out, in)`, computed by oneDNN."""
    return torch_private.onednn_linear(x, weight)


@linear.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-1], len(weight))


def backpropagate_linear(ctx: Any, d_output: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of the inputs.

    MKL computes the weight's gradient: oneDNN would copy its two transposed operands.
    """
    x, weight = ctx.saved_tensors
    if torch.is_grad_enabled():
        function = lambda x, weight: [F.linear(x, weight)]  # noqa: E731
        d_x, d_weight = differentiable_gradients(function, (x, weight), [d_output])
        return d_x, d_weight
    d_x = d_weight = None
    if ctx.needs_input_grad[0]:
        d_x = linear(d_output, weight.t())
    if ctx.needs_input_grad[1]:
        d_weight = d_output.reshape(-1, len(weight)).t() @ x.reshape(-1, weight.shape[1])
    return d_x, d_weight


linear.register_autograd(backpropagate_linear, setup_context=save_inputs)
linear.register_vmap(one_by_one(linear))
