"""A small LLaMA decoder (Touvron et al. 2023, section 2.2): RMSNorm before each sublayer, rotary
position embeddings, SwiGLU, no biases; with grouped-query attention and a sliding window.

The state that it carries is its key-value cache. Keys are kept as they are before rotation, and
rotated with positions counted from the oldest one kept. Scores depend on distances only, so this is
the same function, and angles stay small however long the text grows.
"""

import math
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqbench.errors import ConfigError
from seqbench.models import attention_cpu, llama_cpu
from seqbench.models.embedding import input_layer, tie
from seqbench.models.linear_cpu import Linear
from seqbench.spec import SequenceSpec

# Keys and values of one layer, each (batch, num_kv_heads, cached, head_dim), oldest first.
Cache = tuple[Tensor, Tensor]


class Attention(nn.Module):
    """Causal attention over a sliding window, with fewer key-value heads than query heads if wanted
    (Ainslie et al. 2023).

    Args:
        dim: width of the model.
        num_heads: query heads.
        num_kv_heads: key-value heads, each shared by `num_heads / num_kv_heads` query heads.
        rope_theta: base of the rotary wavelengths.
        context: positions that a query may look at, its own included.
    """

    def __init__(
        self, dim: int, num_heads: int, num_kv_heads: int, rope_theta: float, context: int
    ) -> None:
        super().__init__()
        self.head_dim = dim // num_heads
        self.shared_by = num_heads // num_kv_heads
        self.rope_theta = rope_theta
        self.context = context
        self.query = Linear(dim, dim)
        self.key = Linear(dim, num_kv_heads * self.head_dim)
        self.value = Linear(dim, num_kv_heads * self.head_dim)
        self.output = Linear(dim, dim)

    def forward(self, x: Tensor, cache: Cache | None, last_only: bool) -> tuple[Tensor, Cache]:
        """Attend.

        Args:
            x: `(batch, time, dim)`.
            cache: keys and values of positions before `x`.
            last_only: ask for the last position only.

        Returns:
            `(batch, time, dim)`, or `(batch, 1, dim)`; and the cache with the new positions, cut to
            the `context - 1` that a position to come may look at.
        """
        q = self.heads(self.query(x[:, -1:] if last_only else x))
        k, v = self.heads(self.key(x)), self.heads(self.value(x))
        if cache is not None:
            k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
        seen = k.shape[2]
        forgotten = max(0, seen - self.context + 1)
        after = k[:, :, forgotten:], v[:, :, forgotten:]

        time = q.shape[2]
        if time == 1:
            # All that the one query may look at, and nothing else: no mask is needed.
            k, v = k[:, :, -self.context :], v[:, :, -self.context :]
        y = self.attend(q, k, v)
        return self.output(y.transpose(1, 2).flatten(2)), after

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Let queries, which stand at the last of the keys' positions, look at keys before them.

        Args:
            q: `(batch, num_heads, time, head_dim)`.
            k: `(batch, num_kv_heads, seen, head_dim)`.
            v: as `k`.

        Returns:
            As `q`.
        """
        time, seen = q.shape[2], k.shape[2]
        by_time = [x.transpose(1, 2) for x in (q, k, v)]
        if attention_cpu.pays(*by_time):
            angles = rotation(seen, 1, self.head_dim, self.rope_theta, q.dtype, q.device)
            cos, sin = (table[:seen, 0] for table in angles)
            y, *_ = attention_cpu.AttentionFunction.apply(*by_time, cos, sin, self.context)
            return y.transpose(1, 2)
        mask = None
        if time > 1 and (time < seen or time > self.context):
            mask = band(time, seen, self.context, q.device)
        q = self.rotate(q, seen - time, seen)
        k = self.rotate(k, 0, seen)
        if self.shared_by > 1:
            # Costs no more than `enable_gqa`, which on CPUs leaves the fast kernel.
            k, v = k.repeat_interleave(self.shared_by, 1), v.repeat_interleave(self.shared_by, 1)
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None and time > 1
        )

    def heads(self, x: Tensor) -> Tensor:
        """From `(batch, time, heads * head_dim)` to `(batch, heads, time, head_dim)`."""
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def rotate(self, x: Tensor, begin: int, end: int) -> Tensor:
        """Turn `(batch, heads, time, head_dim)` by the angles of positions `begin` to `end`."""
        # Heads beside their dimensions, as the projections wrote them: long rows of memory.
        x = x.transpose(1, 2)
        cos, sin = rotation(end, x.shape[2], self.head_dim, self.rope_theta, x.dtype, x.device)
        return rotate(x, cos[begin:end], sin[begin:end]).transpose(1, 2)


def band(time: int, seen: int, context: int, device: torch.device) -> Tensor:
    """Which keys each of the last `time` of `seen` positions may look at: itself and the
    `context - 1` before it; `(time, seen)` bool.
    """
    full = torch.ones(time, seen, dtype=torch.bool, device=device)
    return full.tril(seen - time).triu(seen - time - context + 1)


def rotation(
    length: int, heads: int, head_dim: int, theta: float, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the angles of at least `length` positions from 0 on, each
    `(positions, heads, head_dim)`, the same for all heads, at least in single precision.

    Dimension pair i turns by `theta^(-2 i / head_dim)` a position (Su et al. 2021, section 3.2.2);
    a pair is made of dimensions i and `i + head_dim / 2`, and the sine of the first is negative.
    """
    # A power of two, since a cache grows by one position a step when a text is generated.
    size = 1 << (length - 1).bit_length()
    dtype = torch.promote_types(dtype, torch.float32)
    return rotation_table(size, heads, head_dim, theta, dtype, device)


@cache  # never dropped: a CUDA graph reads it from where it is
def rotation_table(
    length: int, heads: int, head_dim: int, theta: float, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of exactly `length` positions, kept for the next call."""
    # What is made in inference mode could not be used in training later.
    with torch.inference_mode(False):
        # In double precision, since float32 angles of far positions are off in the fourth digit.
        pairs = torch.arange(0, head_dim, 2, dtype=torch.float64, device=device)
        positions = torch.arange(length, dtype=torch.float64, device=device)
        angles = torch.outer(positions, theta ** (-pairs / head_dim))
        cos = torch.cat([angles.cos(), angles.cos()], 1)
        sin = torch.cat([-angles.sin(), angles.sin()], 1)
        # Written out for every head: broadcast, each product would be many loops over a short row.
        cos, sin = (table[:, None].repeat(1, heads, 1).to(dtype) for table in (cos, sin))
        return cos, sin


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair of dimensions by its angle.

    Args:
        x: `(batch, time, heads, head_dim)`.
        cos: `(time, heads, head_dim)`.
        sin: `(time, heads, head_dim)`, negative for the first of each pair.

    Returns:
        As `x`, and of its type.
    """
    first, second = x.chunk(2, -1)
    return torch.addcmul(x * cos, torch.cat([second, first], -1), sin).to(x.dtype)


class SwiGLU(nn.Module):
    """Gated feed-forward layer (Shazeer 2020): `down(silu(gate(x)) * up(x))`.

    Args:
        dim: width of input and output.
        hidden_dim: width between.
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.gate = Linear(dim, hidden_dim)
        self.up = Linear(dim, hidden_dim)
        self.down = Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer at each position, `(..., dim)` to `(..., dim)`."""
        gate, up = self.gate(x), self.up(x)
        if llama_cpu.pays(gate, up):
            return self.down(llama_cpu.SwigluFunction.apply(gate, up))
        return self.down(F.silu(gate) * up)


class RMSNorm(nn.RMSNorm):
    """Each vector over the root of its mean square, times weights (Zhang and Sennrich 2019)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise, `(..., dim)` to `(..., dim)`."""
        if llama_cpu.pays(x, self.weight):
            return llama_cpu.RmsNormFunction.apply(x, self.weight, self.eps)[0]
        return super().forward(x)


class Block(nn.Module):
    """Attention, then SwiGLU; each reads a normalised copy and adds its answer to the stream.

    Args:
        attention: the first sublayer.
        feed_forward: the second sublayer.
        dim: width of the stream.
        norm_eps: added to the mean square before its root is taken.
        dropout: probability of dropping a value of what a sublayer adds.
    """

    def __init__(
        self, attention: Attention, feed_forward: SwiGLU, dim: int, norm_eps: float, dropout: float
    ) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(dim, norm_eps)
        self.attention = attention
        self.feed_forward_norm = RMSNorm(dim, norm_eps)
        self.feed_forward = feed_forward
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: Cache | None, last_only: bool) -> tuple[Tensor, Cache]:
        """Apply the block; arguments and results as for `Attention`."""
        y, cache = self.attention(self.attention_norm(x), cache, last_only)
        x = (x[:, -1:] if last_only else x) + self.dropout(y)
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x))), cache


class Llama(nn.Module):
    """Small LLaMA decoder.

    Weights start as N(0, 0.02), those that write to the residual stream smaller by
    `sqrt(2 * num_layers)`, so that the stream does not grow with depth (GPT-2: Radford et al. 2019,
    section 2.3).

    Args:
        spec: the form of the problem.
        dim: width of the model.
        num_layers: blocks.
        num_heads: query heads; `dim / num_heads` must be even.
        num_kv_heads: key-value heads, a divisor of `num_heads`; `None`: as many.
        hidden_dim: width inside the feed-forward layers; `None`: 8/3 of `dim`, rounded up to a
            multiple of 8.
        dropout: probability of dropping a value of the embedding, and of what a sublayer adds.
        rope_theta: base of the rotary wavelengths; the longest is `2 pi rope_theta` positions.
        norm_eps: added to the mean square in RMSNorm.
        tied: share the embedding with the output layer.
        context: last positions that attention reaches, the current one included; `None`: the length
            of a training sequence.
        carry_state: carry the cache from one segment of a text to the next, in training and
            evaluation (Dai et al. 2019, section 3.2).

    Raises:
        ConfigError: a size that cannot be.
    """

    def __init__(
        self,
        spec: SequenceSpec,
        dim: int,
        num_layers: int,
        num_heads: int,
        num_kv_heads: int | None,
        hidden_dim: int | None,
        dropout: float,
        rope_theta: float,
        norm_eps: float,
        tied: bool,
        context: int | None,
        carry_state: bool,
    ) -> None:
        super().__init__()
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        hidden_dim = 8 * math.ceil(dim / 3) if hidden_dim is None else hidden_dim
        self.context = spec.length if context is None else context
        for name, size in {
            "dim": dim,
            "num_layers": num_layers,
            "num_heads": num_heads,
            "num_kv_heads": num_kv_heads,
            "hidden_dim": hidden_dim,
            "context": self.context,
        }.items():
            if size < 1:
                raise ConfigError(f"model.{name} must be at least 1, not {size}")
        if dim % (2 * num_heads):
            raise ConfigError(
                f"model.dim={dim} must be a multiple of twice model.num_heads={num_heads}, so that "
                "each head has pairs of dimensions to rotate"
            )
        if num_heads % num_kv_heads:
            raise ConfigError(
                f"model.num_kv_heads={num_kv_heads} must divide model.num_heads={num_heads}"
            )
        if not 0 <= dropout < 1:
            raise ConfigError(f"model.dropout must be in [0, 1), not {dropout}")
        if rope_theta <= 0:
            raise ConfigError(f"model.rope_theta must be above 0, not {rope_theta}")
        self.carry_state = carry_state
        self.readout = spec.readout
        self.embedding = input_layer(spec, dim)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(
                Attention(dim, num_heads, num_kv_heads, rope_theta, self.context),
                SwiGLU(dim, hidden_dim),
                dim,
                norm_eps,
                dropout,
            )
            for _ in range(num_layers)
        )
        self.norm = RMSNorm(dim, norm_eps)
        self.output = Linear(dim, spec.output_dim)
        for name, weight in self.named_parameters():
            if not name.endswith("norm.weight"):
                writes = name.endswith(("attention.output.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * num_layers) if writes else 0.02)
        if tied:
            tie(self.output, self.embedding)

    def forward(
        self, x: Tensor, state: tuple[Cache, ...] | None = None
    ) -> tuple[Tensor, tuple[Cache, ...]]:
        """Map a sequence to logits or values.

        Args:
            x: `(batch, time)` int64 or `(batch, time, dim)` float.
            state: what an earlier call returned for the time steps before; `None`: there are none.

        Returns:
            `(batch, out)` for readout `last`, `(batch, time, out)` for `every`; and the key-value
            cache of each layer, at most `context - 1` positions.
        """
        # In mixed precision a linear embedding answers in half of it: what all blocks add to, and
        # RMSNorm measures, stays whole.
        h = self.dropout(self.embedding(x).to(self.norm.weight.dtype))
        last = self.readout == "last"
        after = []
        for i, block in enumerate(self.blocks):
            # Read at the last step only, the last block need not answer at any other.
            last_only = last and i == len(self.blocks) - 1
            h, cache = block(h, None if state is None else state[i], last_only)
            after.append(cache)
        outputs = self.output(self.norm(h))
        return outputs[:, -1] if last else outputs, tuple(after)
