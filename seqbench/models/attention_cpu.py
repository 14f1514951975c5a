"""Causal attention with rotary position embeddings on a CPU, by compiled code of our own.

Torch rotates queries and keys in a pass of its own, and multiplies each query with all keys,
the half that the mask throws away included. `attention_cpu.cpp` leaves that half out, says how, and
is the same function up to rounding.
"""

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqbench.models.vectors import call, can_run, one_by_one

SOURCE = Path(__file__).with_suffix(".cpp")


class Attention(ctypes.Structure):
    """`Attention` of the source."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("threads", "batch", "time", "seen", "heads")),
        *((name, ctypes.c_int64) for name in ("key_heads", "dim", "context")),
        *((name, ctypes.c_void_p) for name in ("q", "k", "v", "cos", "sin", "y")),
        *((name, ctypes.c_void_p) for name in ("largest", "share", "d_y", "d_q", "d_k", "d_v")),
    )


def pays(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether attention can be run here, and is not faster by torch.

    Args:
        q: `(batch, time, heads, head_dim)`.
        k: `(batch, seen, key_heads, head_dim)`.
        v: as `k`.
    """
    # A thread takes a head of keys; torch also shares the queries of one.
    enough = len(k) * k.shape[2] >= torch.get_num_threads()
    return can_run(SOURCE, q, k, v) and q.numel() >= 2**14 and enough


class AttentionFunction(torch.autograd.Function):
    """Attention of each query to the key at its own position and those before it."""

    @staticmethod
    def forward(
        q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor, context: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Attend.

        Args:
            q: `(batch, time, heads, head_dim)`, at the last of the positions.
            k: `(batch, seen, key_heads, head_dim)`, each head shared by `heads / key_heads` heads
                of queries.
            v: as `k`.
            cos: `(seen, head_dim)`, of the angles by which positions turn dimension i and
                `i + head_dim / 2`, twice the same.
            sin: `(seen, head_dim)`, the negative first.
            context: keys that a query looks at, at most.

        Returns:
            As `q`; and, without a gradient, of the scores of each query with its keys the largest,
            and one over the sum of their exponentials, each `(batch, heads, time)`.
        """
        q, k, v, cos, sin = (value.contiguous() for value in (q, k, v, cos, sin))
        batch, time, heads, _ = q.shape
        y = torch.empty_like(q)
        largest, share = q.new_empty(2, batch, heads, time)
        fields = {**sizes(q, k, context), "q": q, "k": k, "v": v, "cos": cos, "sin": sin}
        kept = {"y": y, "largest": largest, "share": share}
        call(SOURCE, "forward", q.dtype, Attention, **fields, **kept)
        return y, largest, share

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]
    ) -> None:
        """Keep what the way back needs."""
        *tensors, ctx.context = inputs
        _, largest, share = output
        ctx.mark_non_differentiable(largest, share)
        ctx.save_for_backward(*tensors, largest, share)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Any, Any]:
        """Under `torch.vmap`: one after another."""
        return one_by_one(AttentionFunction.apply, info.batch_size, in_dims, inputs)

    @staticmethod
    def backward(ctx: Any, d_y: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Carry gradients back."""
        q, k, v, cos, sin, largest, share = (value.contiguous() for value in ctx.saved_tensors)
        d_q, d_k, d_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        fields = {**sizes(q, k, ctx.context), "q": q, "k": k, "v": v, "cos": cos, "sin": sin}
        kept = {"largest": largest, "share": share, "d_y": d_y.contiguous()}
        found = {"d_q": d_q, "d_k": d_k, "d_v": d_v}
        call(SOURCE, "backward", q.dtype, Attention, **fields, **kept, **found)
        return d_q, d_k, d_v, None, None, None


def sizes(q: Tensor, k: Tensor, context: int) -> dict[str, int]:
    """What the source must know of the form of queries and keys."""
    batch, time, heads, head_dim = q.shape
    return {
        "batch": batch,
        "time": time,
        "seen": k.shape[1],
        "heads": heads,
        "key_heads": k.shape[2],
        "dim": head_dim,
        "context": min(context, k.shape[1]),  # the source counts in 64 bits
    }
