"""Define `torch.ops.seqbench.attention`: causal attention with rotary positions.

Its kernel is in csrc/attention.cpp.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from seqbench.kernels import reference
from seqbench.kernels.build import library
from seqbench.kernels.operators.transforms import differentiable_gradients, one_by_one
from seqbench.kernels.torch_private import custom_op


@custom_op("attention")
def attention(
    q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor, window: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the output and, for backward, two values of each row of scores.

    They are the largest score, and one over the sum of the exponentials, each `(batch, heads,
    time)`. Arguments as for `reference.attention`; `window` is at most the number of keys.
    """
    output, row_max, row_scale = fields = empty_outputs(q)
    library("attention", q.dtype).call(
        "attention_forward",
        "Attention",
        **inputs_of(q, k, v, cos, sin, window),
        output=output,
        row_max=row_max,
        row_scale=row_scale,
    )
    return fields


def empty_outputs(q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return uninitialized outputs."""
    batch, time, heads, _ = q.shape
    rows = (batch, heads, time)
    return q.new_empty(q.shape), q.new_empty(rows), q.new_empty(rows)


def inputs_of(
    q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor, window: int
) -> dict[str, Any]:
    """Return the fields of the kernel's arguments that forward and backward share."""
    (batch, time, heads, head_dim), (_, keys, key_heads, _) = q.shape, k.shape
    tensors = {"q": q, "k": k, "v": v, "cos": cos, "sin": sin}
    return {name: x.contiguous() for name, x in tensors.items()} | {
        "batch": batch,
        "time": time,
        "keys": keys,
        "heads": heads,
        "key_heads": key_heads,
        "head_dim": head_dim,
        "window": window,
    }


@attention.register_fake
def _(q: Tensor, *others: Any) -> tuple[Tensor, ...]:
    return empty_outputs(q)


@custom_op("attention_backward")
def attention_backward(
    d_output: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cos: Tensor,
    sin: Tensor,
    row_max: Tensor,
    row_scale: Tensor,
    window: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of `q`, `k` and `v`."""
    d_q, d_k, d_v = (x.new_empty(x.shape) for x in (q, k, v))
    library("attention", q.dtype).call(
        "attention_backward",
        "Attention",
        **inputs_of(q, k, v, cos, sin, window),
        row_max=row_max.contiguous(),
        row_scale=row_scale.contiguous(),
        d_output=d_output.contiguous(),
        d_q=d_q,
        d_k=d_k,
        d_v=d_v,
    )
    return d_q, d_k, d_v


@attention_backward.register_fake
def _(d_output: Tensor, q: Tensor, k: Tensor, v: Tensor, *others: Any) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in (q, k, v))


def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Save tensors for backward."""
    *tensors, ctx.window = inputs
    _, row_max, row_scale = output
    ctx.mark_non_differentiable(row_max, row_scale)
    ctx.save_for_backward(*tensors, row_max, row_scale)


def backward(ctx: Any, d_output: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    """Return the gradients of the inputs; `cos` and `sin` are constants."""
    *inputs, row_max, row_scale = ctx.saved_tensors
    if torch.is_grad_enabled():

        @sdpa_kernel(SDPBackend.MATH)  # the fused kernels have no second derivatives
        def function(q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor) -> list[Tensor]:
            return [reference.attention(q, k, v, cos, sin, ctx.window)]

        return *differentiable_gradients(function, inputs, [d_output]), None
    found = attention_backward(d_output, *inputs, row_max, row_scale, ctx.window)
    return *found, None, None, None


attention.register_autograd(backward, setup_context=setup_context)
attention.register_vmap(one_by_one(attention))
