"""Causal sliding-window attention with rotary position embeddings, and linear layers without bias.

The cache holds keys before rotation. They are rotated by positions counted from the oldest cached
key: attention scores depend on relative positions only, so this computes the same function, and the
angles stay small for texts of any length.
"""

from functools import cache

import torch
from torch import Tensor, nn

from seqbench import kernels

# Keys and values of one layer, each (batch, cached, num_kv_heads, head_dim), oldest first.
Cache = tuple[Tensor, Tensor]


class Linear(nn.Linear):
    """A linear layer without bias, `x W^T`, computed by `kernels.linear`.

    Args:
        inputs: width of the input.
        outputs: width of the output.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(..., inputs)` to `(..., outputs)`."""
        return kernels.linear(x, self.weight)


class Attention(nn.Module):
    """Causal sliding-window attention, optionally with grouped queries (Ainslie et al. 2023).

    Args:
        dim: width of the model.
        num_heads: query heads.
        num_kv_heads: key-value heads, each shared by `num_heads / num_kv_heads` query heads.
        rope_theta: base of the rotary wavelengths; `None`: queries and keys are not rotated.
        context: positions that a query attends to, its own included.
        head_dim: width of a head; `None`: `dim / num_heads`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_kv_heads: int,
        rope_theta: float | None,
        context: int,
        head_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.head_dim = head_dim or dim // num_heads
        self.rope_theta = rope_theta
        self.context = context
        self.query = Linear(dim, num_heads * self.head_dim)
        self.key = Linear(dim, num_kv_heads * self.head_dim)
        self.value = Linear(dim, num_kv_heads * self.head_dim)
        self.output = Linear(num_heads * self.head_dim, dim)

    def forward(self, x: Tensor, cache: Cache | None, last_only: bool) -> tuple[Tensor, Cache]:
        """Compute attention and update the cache.

        Args:
            x: `(batch, time, dim)`.
            cache: keys and values of the positions before `x`; `None`: there are none.
            last_only: compute the output of the last position only.

        Returns:
            `(batch, time, dim)`, or `(batch, 1, dim)` if `last_only`; and the cache with the new
            positions, cut to the last `context - 1`, which the next position attends to.
        """
        q = self.heads(self.query(x[:, -1:] if last_only else x))
        k, v = self.heads(self.key(x)), self.heads(self.value(x))
        if cache is not None:
            k, v = torch.cat([cache[0], k], 1), torch.cat([cache[1], v], 1)
        keys = k.shape[1]
        # An exported graph is for all lengths: attention masks what is out of reach.
        exports = torch.compiler.is_exporting()
        forgotten = 0 if exports else max(0, keys - self.context + 1)
        after = k[:, forgotten:], v[:, forgotten:]
        cos, sin = rotation(keys, self.head_dim, self.rope_theta, q.dtype, q.device)
        y = kernels.attention(q, k, v, cos, sin, self.context)
        return self.output(y.flatten(2)), after

    def heads(self, x: Tensor) -> Tensor:
        """Reshape `(batch, time, heads * head_dim)` to `(batch, time, heads, head_dim)`."""
        return x.unflatten(-1, (-1, self.head_dim))


def rotation(
    length: int, head_dim: int, theta: float | None, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of the rotary angles of positions 0 to `length - 1`.

    Pair i consists of dimensions i and `i + head_dim / 2` and rotates by `theta^(-2 i / head_dim)`
    radians per position (Su et al. 2021, section 3.2.2), or not at all if `theta` is `None`. The
    sine of its first dimension is negated.

    Returns:
        Two tensors `(length, head_dim)`, at least float32.
    """
    dtype = torch.promote_types(dtype, torch.float32)
    if torch.compiler.is_exporting():  # the length is a symbol
        return rotation_table.__wrapped__(length, head_dim, theta, dtype, device)
    # Round up to a power of two: in text generation the length grows by one each step, and each
    # table is cached.
    size = 1 << (length - 1).bit_length()
    cos, sin = rotation_table(size, head_dim, theta, dtype, device)
    return cos[:length], sin[:length]


@cache  # unbounded: a captured CUDA graph reads the table by its address, so it must stay alive
def rotation_table(
    length: int, head_dim: int, theta: float | None, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Compute the tables of `rotation`, once per set of arguments."""
    # Inference tensors cannot be used in training later.
    with torch.inference_mode(False):
        # float64: in float32 the angles of large positions are wrong in the fourth digit.
        pairs = torch.arange(0, head_dim, 2, dtype=torch.float64, device=device)
        positions = torch.arange(length, dtype=torch.float64, device=device)
        speeds = torch.zeros_like(pairs) if theta is None else theta ** (-pairs / head_dim)
        angles = torch.outer(positions, speeds)
        cos = torch.cat([angles.cos(), angles.cos()], 1)
        sin = torch.cat([-angles.sin(), angles.sin()], 1)
        return cos.to(dtype), sin.to(dtype)
