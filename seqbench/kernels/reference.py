"""Implement the kernels' functions in plain PyTorch: the fallback, and the oracle of the tests.

They run on every device and dtype, and under all of torch's transforms.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from seqbench.kernels.torch_private import weight_norm

RecurrentKind = Literal["lstm", "gru", "rnn_tanh"]


class BlockShape(NamedTuple):
    """Dilation, stride and output lengths of a residual block; unread outputs are not computed.

    Attributes:
        dilation: distance between the taps of both convolutions.
        stride: distance between outputs of the second convolution.
        middle: outputs of the first convolution.
        length: outputs of the second convolution; the last output of both is at the last step.
    """

    dilation: int
    stride: int
    middle: int
    length: int


class BlockWeights(NamedTuple):
    """The tensors of a residual block.

    A convolution has a magnitude `(out, 1, 1)`, a direction `(out, in, kernel_size)`, a bias
    `(out,)`, and a dropout mask, by which its output is multiplied: `(batch, out)` for whole
    channels, or `(batch, steps, out)`; `None`: no dropout. The projection of the shortcut has a
    weight `(out, in, 1)` and a bias; `None`: the shortcut is the input.
    """

    magnitude1: Tensor
    direction1: Tensor
    bias1: Tensor
    mask1: Tensor | None
    magnitude2: Tensor
    direction2: Tensor
    bias2: Tensor
    mask2: Tensor | None
    project_weight: Tensor | None
    project_bias: Tensor | None


def recurrent(
    kind: RecurrentKind,
    x: Tensor,
    weights: tuple[Tensor, Tensor, Tensor, Tensor],
    state: tuple[Tensor, ...] | None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run one recurrent layer.

    Args:
        kind: type of layer.
        x: `(batch, time, dim)`.
        weights: `w_ih`, `w_hh`, `b_ih` and `b_hh`, as `torch.nn.LSTM`, `GRU` and `RNN` have them.
        state: hidden and, for an LSTM, cell state, each `(batch, hidden)`; `None`: zeros.

    Returns:
        The outputs `(batch, time, hidden)`, and the state after the last step.
    """
    if state is None:
        zeros = x.new_zeros(x.shape[0], weights[1].shape[1])
        state = (zeros, zeros) if kind == "lstm" else (zeros,)
    settings = (True, 1, 0.0, torch.is_grad_enabled(), False, True)
    if kind == "lstm":
        output, *after = torch.lstm(x, [part[None] for part in state], weights, *settings)
    else:
        layer = torch.gru if kind == "gru" else torch.rnn_tanh
        output, *after = layer(x, state[0][None], weights, *settings)
    return output, tuple(part[0] for part in after)


def residual_block(x: Tensor, weights: BlockWeights, shape: BlockShape) -> Tensor:
    """Run a residual block of a TCN (Bai et al. 2018, section 3.3).

    Apply a causal convolution with weight norm, ReLU and dropout twice, add the shortcut, and apply
    ReLU.

    Args:
        x: `(batch, time, in)`.
        weights: tensors of the block.
        shape: dilation, stride and output lengths of the block.

    Returns:
        `(batch, shape.length, out)`.
    """
    w, (dilation, stride, middle, length) = weights, shape
    y = causal_conv_relu(x, w.magnitude1, w.direction1, w.bias1, dilation, 1, middle)
    y = drop(y, w.mask1)
    y = causal_conv_relu(y, w.magnitude2, w.direction2, w.bias2, dilation, stride, length)
    y = drop(y, w.mask2)
    shortcut = x[:, x.shape[1] - 1 - (length - 1) * stride :: stride]
    if w.project_weight is not None:
        shortcut = F.linear(shortcut, w.project_weight.squeeze(2), w.project_bias)
    return F.relu(y + shortcut)


def drop(y: Tensor, mask: Tensor | None) -> Tensor:
    """Multiply `(batch, steps, out)` by a dropout mask, if there is one."""
    if mask is None:
        return y
    return y * (mask if mask.dim() == 3 else mask[:, None])


def causal_conv_relu(
    x: Tensor,
    magnitude: Tensor,
    direction: Tensor,
    bias: Tensor,
    dilation: int,
    stride: int,
    length: int,
) -> Tensor:
    """Convolve so that output t reads inputs up to t, then apply ReLU.

    Args:
        x: `(batch, time, in)`.
        magnitude: `(out, 1, 1)`.
        direction: `(out, in, kernel_size)`.
        bias: `(out,)`.
        dilation: distance between taps.
        stride: distance between outputs.
        length: number of outputs.

    Returns:
        `(batch, length, out)`.
    """
    weight = weight_norm(magnitude, direction)
    reach = (weight.shape[2] - 1) * dilation
    first = x.shape[1] - 1 - (length - 1) * stride
    # Negative padding drops inputs that no output reads.
    padded = F.pad(x.transpose(1, 2).unsqueeze(2), (reach - first, 0))
    # A 2d convolution of height 1 in channels-last format, the layout of the sequences: on a CPU up
    # to twice as fast as conv1d.
    weight = weight.permute(0, 2, 1).contiguous().permute(0, 2, 1).unsqueeze(2)
    y = F.conv2d(padded, weight, bias, stride=(1, stride), dilation=(1, dilation))
    return F.relu(y.squeeze(2).transpose(1, 2))


def attention(q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor, window: int) -> Tensor:
    """Apply causal attention with rotary positions and grouped heads.

    Args:
        q: `(batch, time, heads, head_dim)`, the queries of the last `time` positions.
        k: `(batch, keys, key_heads, head_dim)`; `heads / key_heads` query heads share a key head.
        v: same shape as `k`.
        cos: `(keys, head_dim)`, of the angle of each position and dimension; see `rotate`.
        sin: same shape as `cos`, negative for the first half of the dimensions.
        window: largest number of keys that a query attends to, its own position included.

    Returns:
        The output, of the shape of `q`.
    """
    time, keys = q.shape[1], k.shape[1]
    q, k = rotate(q, cos[keys - time :], sin[keys - time :]), rotate(k, cos, sin)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if (shared_by := q.shape[1] // k.shape[1]) > 1:
        # As fast as `enable_gqa`, which on CPUs turns off the fused kernel.
        k, v = k.repeat_interleave(shared_by, 1), v.repeat_interleave(shared_by, 1)
    mask = None
    if torch.compiler.is_exporting():  # sizes are symbols: one graph for all of them
        at = torch.arange(keys, device=q.device)
        ago = at[keys - time :, None] - at
        mask = (ago >= 0) & (ago < window)
    elif time > 1 and (time < keys or time > window):
        full = torch.ones(time, keys, dtype=torch.bool, device=q.device)
        mask = full.tril(keys - time).triu(keys - time - min(window, keys) + 1)
    elif time == 1:
        seen = min(window, keys)  # all keys that the one query attends to: no mask is needed
        k, v = k[:, :, keys - seen :], v[:, :, keys - seen :]
    y = F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None and time > 1)
    return y.transpose(1, 2)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs of dimensions `i` and `i + head_dim / 2` (Su et al. 2021, section 3.2.2).

    Args:
        x: `(batch, time, heads, head_dim)`.
        cos: `(time, head_dim)`.
        sin: `(time, head_dim)`, negative for the first of each pair.

    Returns:
        The rotated `x`, of the same shape and dtype.
    """
    first, second = x.chunk(2, -1)
    swapped = torch.cat([second, first], -1)
    return torch.addcmul(x * cos[:, None], swapped, sin[:, None]).to(x.dtype)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Return `silu(gate) * up` (Shazeer 2020)."""
    return F.silu(gate) * up


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Divide each vector by the root of its mean square plus `eps`, times `weight`.

    Source: Zhang and Sennrich 2019, equation 4.
    """
    return F.rms_norm(x, weight.shape, weight, eps)
