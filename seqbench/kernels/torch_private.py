"""Functions of torch that are not public, each behind one function. Tested with torch 2.13."""

from typing import Any

import torch
from torch import Tensor


def weight_norm(magnitude: Tensor, direction: Tensor) -> Tensor:
    """Return `magnitude * direction / |direction|`, if possible as one operation.

    Args:
        magnitude: `(out, 1, 1)`.
        direction: `(out, in, kernel_size)`.
    """
    if is_differentiated_by_transform():
        norm = torch.linalg.vector_norm(direction, dim=(1, 2), keepdim=True)
        return magnitude * direction / norm
    if any(map(torch._C._functorch.is_batchedtensor, (direction, magnitude))):
        return _BatchedWeightNorm.apply(magnitude, direction)
    return torch._weight_norm(direction, magnitude, 0)


class _BatchedWeightNorm(torch.autograd.Function):
    """Weight norm under `vmap`, which by itself would run it once for each model."""

    @staticmethod
    def forward(magnitude: Tensor, direction: Tensor) -> Tensor:
        """Raise: under `vmap` the rule below is called instead."""
        raise NotImplementedError

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Save nothing: the operation in the rule has its own backward."""

    @staticmethod
    def vmap(
        info: Any, dims: tuple[int | None, ...], magnitude: Tensor, direction: Tensor
    ) -> tuple[Tensor, int]:
        """Normalize the outputs of all models as if they were those of one."""
        magnitude, direction = (
            x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
            for x, dim in zip((magnitude, direction), dims, strict=True)
        )
        weight = torch._weight_norm(direction.flatten(0, 1), magnitude.flatten(0, 1), 0)
        return weight.view_as(direction), 0


def is_differentiated_by_transform() -> bool:
    """Return True inside `torch.func.grad`, `jvp` and their kin, or forward-mode AD.

    Custom operators have no rules for them: in reverse mode they fail, in forward mode they lose
    the tangents. They support `vmap` alone.
    """
    if torch.autograd.forward_ad._current_level >= 0:
        return True
    levels = torch._C._functorch.get_interpreter_stack() or ()
    return any(level.key() != torch._C._functorch.TransformType.Vmap for level in levels)


def has_bf16_tiles() -> bool:
    """Return True if the processor multiplies whole matrices of bfloat16 (AMX)."""
    return torch.cpu._is_amx_tile_supported()


def has_onednn_linear() -> bool:
    """Return True if `onednn_linear` can be called."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def onednn_linear(x: Tensor, weight: Tensor) -> Tensor:
    """Return `x W^T` of `(..., in)` and `(out, in)`, computed by oneDNN; without a gradient."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
