"""Run each layer in compiled code if that is supported and should be faster, else in PyTorch.

The compiled functions are custom operators of torch, `torch.ops.seqbench.*`, with fake
implementations and gradients. Their kernels are in `csrc/`; `reference.py` has the same functions
in PyTorch.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.nn import functional as F

from seqbench.kernels import operators, reference, torch_private
from seqbench.kernels.build import NotCompiled, library, padded
from seqbench.kernels.reference import BlockShape, BlockWeights, RecurrentKind

# Fewest values for which compiled code makes up for the cost of its call, measured on one thread.
ATTENTION_VALUES = RMS_NORM_VALUES = 2**15
SWIGLU_VALUES = 2**18
LINEAR_VALUES = 2**27  # of input times outputs

_disabled = ContextVar("disabled", default=False)


@contextmanager
def disabled() -> Iterator[None]:
    """Run everything in plain PyTorch inside the context."""
    token = _disabled.set(True)
    try:
        yield
    finally:
        _disabled.reset(token)


def recurrent(
    kind: RecurrentKind,
    x: Tensor,
    weights: tuple[Tensor, Tensor, Tensor, Tensor],
    state: tuple[Tensor, ...] | None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run one recurrent layer; see `reference.recurrent`.

    Under autocast on a CPU the layer computes in the weights' dtype: few processors have a bfloat16
    LSTM, and torch runs GRUs slower in bfloat16 than in float32.
    """
    if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):
            state = None if state is None else tuple(part.to(weights[0].dtype) for part in state)
            return recurrent(kind, x.to(weights[0].dtype), weights, state)
    batch, time, dim = x.shape
    hidden = weights[1].shape[1]
    # Fewer steps do not repay packing the weights, and torch's LSTM is faster for few sequences and
    # many units. Measured with one and two threads.
    enough = time >= 16
    if kind == "lstm":
        enough &= batch * time >= 3 * hidden and 40 * batch >= hidden
    shapes = [(len(weights[1]), dim), (len(weights[1]), hidden), *[(len(weights[1]),)] * 2]
    shapes += [(batch, hidden)] * len(state or ())
    tensors = (*weights, *(state or ()))
    fits = [tuple(tensor.shape) for tensor in tensors] == shapes
    if not enough or not fits or not _can_run("recurrent", x, *tensors):
        return reference.recurrent(kind, x, weights, state)
    if state is None:
        state = (x.new_zeros(batch, hidden),) * (2 if kind == "lstm" else 1)
    output, *after = operators.recurrent(
        kind, x.transpose(0, 1), *weights, *state, *[None] * (2 - len(state)), _saves()
    )
    return output.transpose(0, 1), tuple(after[: len(state)])


def residual_blocks(
    x: Tensor, weights: Sequence[BlockWeights], shapes: Sequence[BlockShape]
) -> Tensor:
    """Run residual blocks of a TCN, one after the other; see `reference.residual_block`.

    Under autocast to bfloat16 on a CPU, compiled convolutions multiply in bfloat16 and sum in
    float32. They also round the shortcut to bfloat16, which torch does not.

    Args:
        x: `(batch, time, in)`.
        weights: tensors of each block.
        shapes: dilation, stride and output lengths of each block.

    Returns:
        `(batch, shapes[-1].length, out)`.
    """
    if _can_run_blocks(x, weights):
        if torch.is_autocast_enabled("cpu"):
            x = x.to(torch.get_autocast_dtype("cpu"))
        empty = weights[0].bias1.new_empty(0)  # lists of operators hold no None
        tensors = [empty if value is None else value for block in weights for value in block]
        sizes = [size for shape in shapes for size in shape]
        return operators.residual_blocks(x, tensors, sizes, _saves())[0]
    for block, shape in zip(weights, shapes, strict=True):
        x = reference.residual_block(x, block, shape)
    return x


def attention(q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor, window: int) -> Tensor:
    """Apply causal attention with rotary positions; see `reference.attention`."""
    # The kernel gives each thread a key head of one sequence; torch also divides its queries.
    enough = _at_least(ATTENTION_VALUES, q.numel()) and len(k) * k.shape[2] >= _threads()
    fits = k.shape == v.shape and cos.shape == sin.shape == (k.shape[1], k.shape[3])
    fits &= not (cos.requires_grad or sin.requires_grad)  # the kernel has no gradient for them
    if enough and fits and _can_run("attention", q, k, v, cos, sin):
        return operators.attention(q, k, v, cos, sin, min(window, k.shape[1]))[0]
    return reference.attention(q, k, v, cos, sin, window)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Return `silu(gate) * up`; both of the same shape."""
    if (
        _at_least(SWIGLU_VALUES, gate.numel())
        and gate.shape == up.shape
        and _can_run("pointwise", gate, up)
    ):
        return operators.swiglu(gate, up)
    return reference.swiglu(gate, up)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Divide each vector of `(..., dim)` by its root mean square, times `weight` `(dim,)`."""
    if (
        _at_least(RMS_NORM_VALUES, x.numel())
        and x.shape[-1:] == weight.shape
        and _can_run("pointwise", x, weight)
    ):
        return operators.rms_norm(x, weight, eps)[0]
    return reference.rms_norm(x, weight, eps)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """Return `x W^T`, of `(..., in)` and `(out, in)`.

    `F.linear` uses MKL, which reaches 65 to 85 % of an AMD EPYC's peak; oneDNN reaches 90 %.
    """
    if (
        _at_least(LINEAR_VALUES, x.numel() * len(weight))
        and x.dtype == torch.float32
        and x.shape[-1] == weight.shape[1]
        and _is_eligible(x, weight)
        and torch_private.has_onednn_linear()
    ):
        return operators.linear(x, weight)
    return F.linear(x, weight)


# The choice between compiled code and PyTorch.


def _at_least(fewest: int, size: int) -> bool:
    """Return True if `size` is at least `fewest`; False in an export, which is for all sizes."""
    return not torch.compiler.is_exporting() and size >= fewest


def _saves() -> bool:
    """Return True if a forward pass must save tensors for backward."""
    return torch.is_grad_enabled()


def _is_eligible(x: Tensor, *others: Tensor, autocast: bool = False) -> bool:
    """Return True if the custom operators may run on these tensors.

    Args:
        x: the input.
        others: must have the dtype and device of `x`.
        autocast: True if the operator handles autocast itself.
    """
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        return False
    if torch.is_autocast_enabled("cpu") and not autocast:
        return False
    if any(other.dtype != x.dtype or other.device != x.device for other in others):
        return False  # the reference raises the error
    if torch.compiler.is_compiling():
        # An exported graph must run without seqbench.
        return not torch.compiler.is_exporting() and not _disabled_when_traced()
    return not _disabled.get() and not torch_private.is_differentiated_by_transform()


def _can_run(source: str, x: Tensor, *others: Tensor, autocast: bool = False) -> bool:
    """Return True if a source's operators can run on these tensors; compile it if needed."""
    return _is_eligible(x, *others, autocast=autocast) and _is_compiled(source, x.dtype)


@torch_private.constant_when_traced
def _threads() -> int:
    return torch.get_num_threads()


@torch_private.constant_when_traced
def _disabled_when_traced() -> bool:
    return _disabled.get()


@torch_private.constant_when_traced
def _is_compiled(source: str, dtype: torch.dtype) -> bool:
    try:
        library(source, dtype)
    except NotCompiled:
        return False
    return True


def _can_run_blocks(x: Tensor, weights: Sequence[BlockWeights]) -> bool:
    """Return True if the kernel supports these residual blocks and should beat PyTorch."""
    directions = [value for block in weights for value in (block.direction1, block.direction2)]
    weight = directions[0]
    autocast = torch.is_autocast_enabled("cpu")
    dtypes = {torch.float32, torch.bfloat16} if autocast else {weight.dtype}
    if x.device != weight.device or x.dtype not in dtypes or x.shape[2] != weight.shape[1]:
        return False
    if autocast and (
        torch.get_autocast_dtype("cpu") != torch.bfloat16
        or weight.dtype != torch.float32
        or torch_private.has_bf16_tiles()  # torch uses AMX, the kernel does not
    ):
        return False
    if not _can_run("residual_block", *directions, autocast=True):
        return False
    if autocast and not _is_compiled("residual_block", torch.bfloat16):
        return False
    # Padding to whole vectors must not add more than half of the work.
    done = asked = 0
    for i, direction in enumerate(directions):
        out, inputs, _ = direction.shape
        passes = 2 if i > 0 or x.requires_grad else 1
        done += padded("residual_block", out, weight.dtype) * inputs + padded(
            "residual_block", inputs, weight.dtype
        ) * out * (passes - 1)
        asked += out * inputs * passes
    return 2 * done <= 3 * asked
