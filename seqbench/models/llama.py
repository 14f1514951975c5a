"""A small LLaMA decoder (Touvron et al. 2023, section 2.2): RMSNorm before each sublayer, rotary
position embeddings, SwiGLU, no biases; with grouped-query attention and a sliding window.

Each of the three parts can be exchanged for its predecessor in GPT-2 (Radford et al. 2019), to
measure what it contributes: LayerNorm, learned position embeddings, GELU.

Its state is the key-value cache of `seqbench.models.attention`.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, cast

from torch import Tensor, nn
from torch.nn import functional as F

from seqbench import kernels
from seqbench.errors import ConfigError
from seqbench.models.attention import Attention, Cache, Linear
from seqbench.models.embedding import input_layer, tie
from seqbench.models.sequence_model import SequenceModel, read_out
from seqbench.models.units import Place, Units, fewer
from seqbench.spec import SequenceSpec


class SwiGLU(nn.Module):
    """Gated feed-forward layer (Shazeer 2020): `down(silu(gate(x)) * up(x))`.

    Args:
        dim: width of input and output.
        hidden_dim: width of the hidden layer.
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.gate = Linear(dim, hidden_dim)
        self.up = Linear(dim, hidden_dim)
        self.down = Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer at each position, `(..., dim)` to `(..., dim)`."""
        return self.down(kernels.swiglu(self.gate(x), self.up(x)))


class Gelu(nn.Module):
    """Feed-forward layer of GPT-2: `down(gelu(up(x)))` (Hendrycks and Gimpel 2016).

    Args:
        dim: width of input and output.
        hidden_dim: width of the hidden layer.
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.up = Linear(dim, hidden_dim)
        self.down = Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer at each position, `(..., dim)` to `(..., dim)`."""
        return self.down(F.gelu(self.up(x)))


class RMSNorm(nn.RMSNorm):
    """Root mean square normalisation (Zhang and Sennrich 2019), by `kernels.rms_norm`."""

    def forward(self, x: Tensor) -> Tensor:
        """Divide each vector of `(..., dim)` by its root mean square; multiply by the weights."""
        return kernels.rms_norm(x, self.weight, cast(float, self.eps))


Norm = Literal["rms", "layer"]


def normalization(kind: Norm, dim: int, eps: float) -> nn.Module:
    """Return RMSNorm, or LayerNorm without bias, over the last dimension."""
    return RMSNorm(dim, eps) if kind == "rms" else nn.LayerNorm(dim, eps, bias=False)


class Block(nn.Module):
    """A pre-norm transformer block: two sublayers, each with a residual connection.

    Args:
        attention: the first sublayer.
        feed_forward: the second sublayer.
        norms: normalization before the first and before the second.
        dropout: probability of dropping a value of a sublayer's output.
    """

    def __init__(
        self,
        attention: Attention,
        feed_forward: nn.Module,
        norms: tuple[nn.Module, nn.Module],
        dropout: float,
    ) -> None:
        super().__init__()
        # In this order: checkpoints number the optimizer's state by parameter.
        self.attention_norm = norms[0]
        self.attention = attention
        self.feed_forward_norm = norms[1]
        self.feed_forward = feed_forward
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: Cache | None, last_only: bool) -> tuple[Tensor, Cache]:
        """Apply the block; arguments and results as for `Attention.forward`."""
        y, cache = self.attention(self.attention_norm(x), cache, last_only)
        x = (x[:, -1:] if last_only else x) + self.dropout(y)
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x))), cache


def default_hidden_dim(dim: int, is_gated: bool) -> int:
    """Return the width of a feed-forward layer's hidden layer, see `Llama`."""
    return 8 * math.ceil(dim / 3) if is_gated else 4 * dim


class Llama(SequenceModel):
    """Small LLaMA decoder.

    Weights are initialized from a normal distribution of standard deviation 0.02. Those of the
    sublayers' output layers are divided by `sqrt(2 * num_layers)`, so that the residual stream does
    not grow with depth (GPT-2: Radford et al. 2019, section 2.3).

    Args:
        spec: the problem's spec.
        dim: width of the model.
        num_layers: blocks.
        num_heads: query heads; without `head_dim`, `dim / num_heads` must be an even integer.
        num_kv_heads: key-value heads, a divisor of `num_heads`; `None`: `num_heads`.
        hidden_dim: width of the feed-forward layers' hidden layer; `None`: as many weights as with
            4 `dim` and GELU: 8/3 of `dim`, rounded up to a multiple of 8, with SwiGLU.
        dropout: probability of dropping a value of the embedding or of a sublayer's output.
        rope_theta: base of the rotary wavelengths, which are from `2 pi` to less than
            `2 pi rope_theta` positions.
        norm_eps: epsilon of normalization, added to the mean square.
        tied: share the embedding's weight with the output layer.
        context: positions that attention reaches, the current one included; `None`: the length of a
            training sequence.
        carry_state: carry the cache from one segment of a text to the next, in training and
            evaluation (Dai et al. 2019, section 3.2).
        norm: normalization before each sublayer and the output layer: RMSNorm or LayerNorm.
        feed_forward: second sublayer of each block: SwiGLU or GELU.
        positions: rotary position embeddings, or an embedding of each position of a training
            sequence that is learned and added to the input. The latter has no state.
        head_dim: width of a head, an even number; `None`: `dim / num_heads`. A model with some of
            its heads removed has fewer heads of the same width.

    Raises:
        ConfigError: if a value is out of range or the sizes do not fit together.
    """

    takes_lengths = True

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
        norm: Norm = "rms",
        feed_forward: Literal["swiglu", "gelu"] = "swiglu",
        positions: Literal["rotary", "learned"] = "rotary",
        head_dim: int | None = None,
    ) -> None:
        super().__init__()
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        if hidden_dim is None:
            hidden_dim = default_hidden_dim(dim, feed_forward == "swiglu")
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
        if head_dim is not None and (head_dim < 2 or head_dim % 2):
            raise ConfigError(
                f"model.head_dim={head_dim} must be even and at least 2, so that each head has "
                "pairs of dimensions to rotate"
            )
        if head_dim is None and dim % (2 * num_heads):
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
        rotary = positions == "rotary"
        if carry_state and not rotary:
            raise ConfigError(
                "model.carry_state needs model.positions=rotary: learned positions end with the "
                "training sequence"
            )
        self.carry_state, self.has_state = carry_state, rotary
        self.readout = spec.readout
        self.embedding = input_layer(spec, dim)
        self.positions = None if rotary else nn.Embedding(spec.length, dim)
        self.dropout = nn.Dropout(dropout)
        theta = rope_theta if rotary else None
        layer = SwiGLU if feed_forward == "swiglu" else Gelu
        self.blocks = nn.ModuleList(
            Block(
                Attention(dim, num_heads, num_kv_heads, theta, self.context, head_dim),
                layer(dim, hidden_dim),
                (normalization(norm, dim, norm_eps), normalization(norm, dim, norm_eps)),
                dropout,
            )
            for _ in range(num_layers)
        )
        self.norm = normalization(norm, dim, norm_eps)
        self.output = Linear(dim, spec.output_dim)
        for name, weight in self.named_parameters():
            if not name.endswith("norm.weight"):
                writes = name.endswith(("attention.output.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * num_layers) if writes else 0.02)
        if tied:
            tie(self.output, self.embedding)

    @classmethod
    def with_fewer_units(
        cls, spec: SequenceSpec, options: dict[str, Any], share: float
    ) -> dict[str, Any]:
        """Return options with fewer heads and narrower feed-forward layers.

        A key-value head goes with all its query heads; see `SequenceModel.with_fewer_units`.
        """
        dim, heads, kv_heads = options["dim"], options["num_heads"], options["num_kv_heads"]
        groups = heads if kv_heads is None else kv_heads
        left = fewer(groups, share)
        is_gated = options.get("feed_forward", "swiglu") == "swiglu"
        return options | {
            "num_heads": heads // groups * left,
            "num_kv_heads": None if kv_heads is None else left,
            "head_dim": options.get("head_dim") or dim // heads,
            "hidden_dim": fewer(options["hidden_dim"] or default_hidden_dim(dim, is_gated), share),
        }

    def units(self) -> Sequence[Units]:
        """Return key-value heads with their query heads, and hidden units, of each block."""
        found = []
        for i, block in enumerate(cast(list[Block], self.blocks)):
            attention, layers = block.attention, dict(block.feed_forward.named_children())
            heads = [
                Place(f"blocks.{i}.attention.{name}.weight") for name in ("query", "key", "value")
            ]
            heads.append(Place(f"blocks.{i}.attention.output.weight", 1))
            hidden = [
                Place(f"blocks.{i}.feed_forward.{name}.weight", int(name == "down"))
                for name in layers
            ]
            count = attention.key.out_features // attention.head_dim
            found.append(Units(f"heads of block {i}", count, heads))
            width = cast(Linear, layers["down"]).in_features
            found.append(Units(f"hidden units of block {i}", width, hidden))
        return found

    def forward(
        self,
        x: Tensor,
        state: tuple[Cache, ...] | None = None,
        context: int = 0,
        lengths: Tensor | None = None,
    ) -> tuple[Tensor, tuple[Cache, ...] | None]:
        """Map a sequence to logits or values.

        Args:
            x: `(batch, time)` int64 or `(batch, time, dim)` float.
            state: the state returned for the previous time steps; `None`: there are none.
            context: must be 0.
            lengths: see `SequenceModel.forward`.

        Returns:
            `(batch, out)` for readout `last` and `mean`, `(batch, time, out)` for `every`; and the
            state, the key-value cache of each layer, at most `context - 1` positions; `None` with
            learned positions.

        Raises:
            ConfigError: if positions are learned and the sequence is longer than in training.
        """
        # Under autocast a linear embedding returns half precision. The residual stream, which
        # normalization reads, stays in the weights' dtype.
        h = self.embedding(x).to(self.output.weight.dtype)
        if self.positions is not None:
            if x.shape[1] > len(self.positions.weight):
                raise ConfigError(
                    f"the model has learned {len(self.positions.weight)} positions, too few for a "
                    f"sequence of {x.shape[1]} steps; model.positions=rotary has no limit"
                )
            h = h + self.positions.weight[: x.shape[1]]
        h = self.dropout(h)
        last = self.readout == "last" and lengths is None
        after = []
        for i, block in enumerate(self.blocks):
            # If only the last step is read, the last block computes no other.
            last_only = last and i == len(self.blocks) - 1
            h, cache = block(h, None if state is None else state[i], last_only)
            after.append(cache)
        outputs = self.output(self.norm(h))
        return read_out(outputs, self.readout, lengths), tuple(after) if self.has_state else None
