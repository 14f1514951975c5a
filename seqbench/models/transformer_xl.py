"""Transformer-XL (Dai et al. 2019): segment-level recurrence and relative positional attention.

The text is read in segments. Each layer attends to its segment and to the `memory` hidden states of
its input before the segment, through which no gradient flows (section 3.2). The state is this
memory. So the longest dependency grows with the number of layers times `memory`, and the memory may
be longer in evaluation than in training.

The attention score of query i and key j is (section 3.3, terms a to d)

    (q_i + u) k_j + (q_i + v) W_R R_(i-j),    divided by sqrt(head_dim),

where R is the sinusoidal encoding of the distance i - j, and u and v are shared by all layers. As
in the paper, a position attends to all earlier positions of its own segment. Two consequences:

- If `memory` reaches the start of the text, the outputs of its segments, of any lengths, are those
  of one pass over the text: each layer reads the same hidden states.
- With a shorter memory a position sees `memory` plus its offset in the segment, so outputs depend
  on where segments begin. They are then not those of one pass, which sees all.

From the released code: dropout of the distance encodings.
"""

import torch
from torch import Tensor, nn

from seqbench.errors import ConfigError
from seqbench.models.attention import Linear
from seqbench.models.embedding import input_layer, tie
from seqbench.models.sequence_model import SequenceModel, read_out
from seqbench.spec import SequenceSpec

# Queries whose scores are computed at once.
BLOCK = 512
# The inputs of each layer at the last steps, (batch, steps, dim), first layer to last.
State = tuple[Tensor, ...]


class RelativeAttention(nn.Module):
    """Causal attention with relative positions.

    Args:
        dim: width of the model.
        num_heads: heads, each of `dim / num_heads` dimensions.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = Linear(dim, dim)
        self.key = Linear(dim, dim)
        self.value = Linear(dim, dim)
        self.position = Linear(dim, dim)
        self.output = Linear(dim, dim)

    def forward(self, h: Tensor, context: Tensor, r: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Compute attention.

        Args:
            h: the positions that attend, `(batch, queries, dim)`.
            context: memory and segment, `(batch, keys, dim)`; its last positions are `h`.
            r: encodings of the distances `keys - 1` to 0, `(keys, dim)`.
            u: bias of the queries for the keys' content, `(dim,)`.
            v: bias of the queries for the keys' distance, `(dim,)`.

        Returns:
            `(batch, queries, dim)`.
        """
        q = self.heads(self.query(h))
        k, values = self.heads(self.key(context)), self.heads(self.value(context))
        r, u, v = (self.heads(each) for each in (self.position(r), u, v))
        seen, parts = k.shape[1] - q.shape[1], []
        # A block of queries at a time: all scores of a long sequence would not fit into memory. An
        # exported graph is for all lengths.
        for block in [q] if torch.compiler.is_exporting() else q.split(BLOCK, 1):
            seen += block.shape[1]
            reach = r[r.shape[0] - seen :]
            parts.append(attend(block, k[:, :seen], values[:, :seen], reach, u, v))
        return self.output(torch.cat(parts, 1).flatten(2))

    def heads(self, x: Tensor) -> Tensor:
        """Reshape `(..., dim)` to `(..., num_heads, head_dim)`."""
        return x.unflatten(-1, (self.num_heads, -1))


def attend(q: Tensor, k: Tensor, values: Tensor, r: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Apply causal attention to all heads.

    Args:
        q: `(batch, queries, heads, head_dim)`, of the last positions.
        k: `(batch, keys, heads, head_dim)`.
        values: same shape as `k`.
        r: `(keys, heads, head_dim)`, of the distances `keys - 1` to 0.
        u: `(heads, head_dim)`.
        v: `(heads, head_dim)`.

    Returns:
        The output, of the shape of `q`.
    """
    content = torch.einsum("bihd,bjhd->bhij", q + u, k)  # terms a and c
    distance = torch.einsum("bihd,jhd->bhij", q + v, r)  # terms b and d
    scores = (content + relative_shift(distance)) * q.shape[3] ** -0.5
    at = torch.arange(k.shape[1], device=k.device)
    future = at > at[k.shape[1] - q.shape[1] :, None]
    weights = scores.masked_fill(future, -torch.inf).softmax(3)
    return torch.einsum("bhij,bjhd->bihd", weights.to(values.dtype), values)


def relative_shift(x: Tensor) -> Tensor:
    """Move each query's row from distances to keys (appendix B).

    Args:
        x: `(batch, heads, queries, keys)`, whose columns are the distances `keys - 1` to 0.

    Returns:
        The same shape, whose columns are the keys. Those after the query hold other rows' values.
    """
    batch, heads, queries, keys = x.shape
    padded = torch.cat([x.new_zeros(batch, heads, queries, 1), x], 3)
    # Row i of the result begins i + 1 - queries columns further left, since rows are one longer.
    shifted = padded.view(batch, heads, keys + 1, queries)[:, :, 1:]
    return shifted.reshape(batch, heads, queries, keys)


def encodings(length: int, dim: int, like: Tensor) -> Tensor:
    """Return the sinusoidal encodings R of the distances `length - 1` to 0, `(length, dim)`.

    The first half of an encoding are sines, the second half cosines, of wavelengths from `2 pi` to
    less than `20000 pi`.
    """
    # float64: in float32 the angles of large distances are wrong in the fourth digit.
    distances = torch.arange(length - 1, -1, -1, dtype=torch.float64, device=like.device)
    pairs = torch.arange(0, dim, 2, dtype=torch.float64, device=like.device)
    angles = distances[:, None] * 10_000 ** (-pairs / dim)
    return torch.cat([angles.sin(), angles.cos()], 1).to(like.dtype)


class Layer(nn.Module):
    """Attention and a position-wise feed-forward layer, each with residual and LayerNorm after it.

    Args:
        dim: width of the model.
        num_heads: heads of the attention.
        hidden_dim: width of the feed-forward layer's hidden layer.
        dropout: probability of dropping a value of a sublayer's output, or of the hidden layer.
    """

    def __init__(self, dim: int, num_heads: int, hidden_dim: int, dropout: float) -> None:
        super().__init__()
        self.attention = RelativeAttention(dim, num_heads)
        self.attention_norm = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, hidden_dim)
        self.down = nn.Linear(hidden_dim, dim)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, context: Tensor, r: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Apply the layer; arguments and result as for `RelativeAttention.forward`."""
        h = self.attention_norm(h + self.dropout(self.attention(h, context, r, u, v)))
        inner = self.dropout(self.up(h).relu())
        return self.feed_forward_norm(h + self.dropout(self.down(inner)))


class TransformerXL(SequenceModel):
    """Transformer-XL.

    Weights are initialized from a normal distribution of standard deviation 0.02, biases to 0.

    Args:
        spec: the problem's spec.
        dim: width of the model, an even number.
        num_layers: layers.
        num_heads: heads of the attention, a divisor of `dim`.
        hidden_dim: width of the feed-forward layers' hidden layer.
        dropout: probability of dropping a value of the embedding, of a distance encoding or inside
            a layer.
        tied: share the embedding's weight with the output layer.
        memory: hidden states of each layer that are kept from earlier segments, in training;
            `None`: as many as a training sequence has steps. At 0 in training and evaluation, no
            state is carried.
        eval_memory: the same in evaluation; `None`: as in training.

    Raises:
        ConfigError: if a value is out of range or the sizes do not fit together.
    """

    has_state = True
    takes_lengths = True
    evaluation_options = ("eval_memory",)

    def __init__(
        self,
        spec: SequenceSpec,
        dim: int,
        num_layers: int,
        num_heads: int,
        hidden_dim: int,
        dropout: float,
        tied: bool,
        memory: int | None,
        eval_memory: int | None,
    ) -> None:
        super().__init__()
        self.memory = spec.length if memory is None else memory
        self.eval_memory = self.memory if eval_memory is None else eval_memory
        sizes = {"num_layers": num_layers, "num_heads": num_heads, "hidden_dim": hidden_dim}
        for name, size in ({"dim": dim} | sizes).items():
            if size < 1:
                raise ConfigError(f"model.{name} must be at least 1, not {size}")
        for name, size in (("memory", self.memory), ("eval_memory", self.eval_memory)):
            if size < 0:
                raise ConfigError(f"model.{name} must be at least 0, not {size}")
        if dim % 2 or dim % num_heads:
            raise ConfigError(
                f"model.dim={dim} must be even, and a multiple of model.num_heads={num_heads}"
            )
        if not 0 <= dropout < 1:
            raise ConfigError(f"model.dropout must be in [0, 1), not {dropout}")
        # Only outputs at every step are of a text. Without memory its context is read instead.
        self.carry_state = spec.readout == "every" and max(self.memory, self.eval_memory) > 0
        self.dim = dim
        self.readout = spec.readout
        self.embedding = input_layer(spec, dim, bias=True)
        self.dropout = nn.Dropout(dropout)
        self.content_bias = nn.Parameter(torch.empty(dim))  # u
        self.distance_bias = nn.Parameter(torch.empty(dim))  # v
        self.layers = nn.ModuleList(
            Layer(dim, num_heads, hidden_dim, dropout) for _ in range(num_layers)
        )
        self.output = nn.Linear(dim, spec.output_dim)
        reads_features = isinstance(self.embedding, nn.Linear)
        for name, weight in self.named_parameters():
            # The input layer of real features keeps torch's weights: after smaller ones LayerNorm
            # would leave little of a feature's size.
            if "norm" in name or (reads_features and name.startswith("embedding")):
                continue
            is_bias = name.endswith(".bias")
            nn.init.zeros_(weight) if is_bias else nn.init.normal_(weight, std=0.02)
        if tied:
            tie(self.output, self.embedding)

    def forward(
        self,
        x: Tensor,
        state: State | None = None,
        context: int = 0,
        lengths: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Map a sequence to logits or values.

        Args:
            x: `(batch, time)` int64 or `(batch, time, dim)` float.
            state: the state returned for the previous time steps; `None`: there are none.
            context: must be 0.
            lengths: see `SequenceModel.forward`.

        Returns:
            `(batch, out)` for readout `last` and `mean`, `(batch, time, out)` for `every`; and the
            state, the memory of each layer, at most `memory` steps.
        """
        # Under autocast a linear embedding returns half precision. The residual stream, which
        # LayerNorm reads, stays in the weights' dtype.
        h = self.dropout(self.embedding(x).to(self.content_bias.dtype))
        steps = x.shape[1] + (0 if state is None else state[0].shape[1])
        r = self.dropout(encodings(steps, self.dim, h))
        kept = self.memory if self.training else self.eval_memory
        # An exported graph is for all lengths, and has no state.
        forgotten = 0 if torch.compiler.is_exporting() else max(0, steps - kept)
        last = self.readout == "last" and lengths is None
        after = []
        for i, layer in enumerate(self.layers):
            known = h if state is None else torch.cat([state[i], h], 1)
            after.append(known[:, forgotten:].detach())
            # If only the last step is read, the last layer computes no other.
            h = h[:, -1:] if last and i == len(self.layers) - 1 else h
            h = layer(h, known, r, self.content_bias, self.distance_bias)
        return self.output(read_out(h, self.readout, lengths)), tuple(after)
