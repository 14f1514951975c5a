"""Write seqbench's models as a textbook does: to compare their speed with, and to export.

Each has the weights of the model that it inherits from, and computes the same function of them. No
output is skipped, and all operations are PyTorch's.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from seqbench import kernels
from seqbench.errors import ConfigError
from seqbench.models import linear, llama, rnn, tcn, tcn_attention, transformer_xl
from seqbench.models.rnn import State
from seqbench.models.sequence_model import SequenceModel, read_out
from seqbench.spec import SequenceSpec

Forward = TypeVar("Forward", bound=Callable[..., Any])


def unfused(forward: Forward) -> Forward:
    """Wrap a forward pass so that it uses no compiled kernels and no fused attention."""

    @wraps(forward)
    def call(*args: Any, **kwargs: Any) -> Any:
        with kernels.disabled(), sdpa_kernel(SDPBackend.MATH):
            return forward(*args, **kwargs)

    return cast(Forward, call)


# The last inputs `(batch, channels, steps)` of both convolutions of each block of a TCN.
Buffers = tuple[tuple[Tensor, Tensor], ...]


class TCN(tcn.TCN):
    """Every block at every time step (Bai, Kolter, Koltun 2018, figure 1b)."""

    skips_context = False

    @unfused
    def forward(
        self,
        x: Tensor,
        state: Buffers | None = None,
        context: int = 0,
        lengths: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        """Return the outputs, of the shape that `SequenceSpec.readout` asks for.

        Given buffers, also return those of the next time steps; before the first step they are 0.
        """
        h, after = levels(self, x, state)
        y = self.output(read_out(h, self.readout, lengths))
        return y, None if state is None else after


def levels(model: tcn.TCN, x: Tensor, state: Buffers | None) -> tuple[Tensor, Any]:
    """Return the last block's output `(batch, time, channels)`, and the buffers after that."""
    h = (x if model.embedding is None else model.embedding(x)).transpose(1, 2)
    after = []
    for i, block in enumerate(model.blocks):
        before = (None, None) if state is None else state[i]
        h, buffers = residual_block(h, cast(tcn.Block, block), 2**i, before)
        after.append(buffers)
    return h.transpose(1, 2), tuple(after)


def residual_block(
    x: Tensor, block: tcn.Block, dilation: int, before: Sequence[Tensor | None]
) -> tuple[Tensor, Sequence[Tensor | None]]:
    """Map `(batch, in, time)` to `(batch, out, time)`; also return the buffers after that."""
    y, after = x, []
    for conv, buffer in zip((block.conv1, block.conv2), before, strict=True):
        reach = (conv.kernel_size[0] - 1) * dilation
        if buffer is None:
            y = F.conv1d(y, conv.weight, conv.bias, padding=reach, dilation=dilation)
            # torch pads both sides: remove the outputs that see the future.
            y = y[..., :-reach].contiguous()
        else:
            steps = y.shape[2]
            y = torch.cat([buffer, y], 2)
            buffer = y[..., steps:]
            y = F.conv1d(y, conv.weight, conv.bias, dilation=dilation)
        after.append(buffer)
        y = block.dropout(F.relu(y))
    return F.relu(y + (x if block.downsample is None else block.downsample(x))), after


class Recurrent(rnn.Recurrent):
    """Torch's recurrent layers; with readout `last` the outputs of all other steps are dropped."""

    def forward(
        self,
        x: Tensor,
        state: State | None = None,
        context: int = 0,
        lengths: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Return the outputs and the state of each layer after the last step."""
        h = x if self.embedding is None else self.embedding(x)
        after = []
        for i, layer in enumerate(self.layers):
            h, ended = layer(self.dropout(h) if i else h, None if state is None else state[i])
            after.append(ended)
        return self.output(self.dropout(read_out(h, self.readout, lengths))), tuple(after)


class LSTM(Recurrent, rnn.LSTM):
    """`nn.LSTM`."""


class GRU(Recurrent, rnn.GRU):
    """`nn.GRU`."""


class RNN(Recurrent, rnn.RNN):
    """`nn.RNN`, with tanh."""


class Llama(llama.Llama):
    """LLaMA decoder with masked softmax attention (Vaswani et al. 2017, section 3.2)."""

    forward = unfused(llama.Llama.forward)


class TransformerXL(transformer_xl.TransformerXL):
    """Transformer-XL without compiled linear layers."""

    forward = unfused(transformer_xl.TransformerXL.forward)


class TCNAttention(tcn_attention.TCNAttention):
    """A TCN's blocks in torch's convolutions, below masked softmax attention."""

    forward = unfused(tcn_attention.TCNAttention.forward)

    def levels(self, x: Tensor) -> Tensor:
        """Return the last block's output, `(batch, time, channels)`."""
        return levels(self, x, None)[0]


PLAIN: dict[str, type[SequenceModel]] = {
    "seqbench.models.tcn.TCN": TCN,
    "seqbench.models.rnn.LSTM": LSTM,
    "seqbench.models.rnn.GRU": GRU,
    "seqbench.models.rnn.RNN": RNN,
    "seqbench.models.llama.Llama": Llama,
    "seqbench.models.transformer_xl.TransformerXL": TransformerXL,
    "seqbench.models.tcn_attention.TCNAttention": TCNAttention,
    # These have no compiled code.
    "seqbench.models.linear.NLinear": linear.NLinear,
    "seqbench.models.linear.DLinear": linear.DLinear,
}


def build_plain(node: dict[str, Any], spec: SequenceSpec) -> SequenceModel:
    """Build the plain form of a model, with the same initial weights for the same seed.

    Args:
        node: the config's `model` node.
        spec: input, target, readout and length of the task.

    Raises:
        ConfigError: if the model is custom, and so has no plain form.
    """
    check_known(node)
    sizes = {key: value for key, value in node.items() if not key.startswith("_")}
    return PLAIN[node["_target_"]](spec, **sizes)


def check_known(node: dict[str, Any]) -> None:
    """Raise ConfigError if the config's `model` node has no plain form."""
    if node["_target_"] not in PLAIN:
        raise ConfigError(
            f"only models of seqbench have a plain form, the reference, not {node['_target_']}"
        )
