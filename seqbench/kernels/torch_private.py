"""Wrap each private function of torch in one function; tested with torch 2.13.

Some wrappers avoid the import of torch's compiler, which takes as long as that of torch: commands
that train need it for the optimizer, commands that only use a trained model do not.
"""

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch._library.custom_ops import CustomOpDef

F = TypeVar("F", bound=Callable[..., Any])


def constant_when_traced(function: F) -> F:
    """Mark a function, as `torch.compiler.assume_constant_result`, without importing the compiler.

    Returns:
        The function; a compiled graph contains its result at the time of tracing.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def use_deterministic_algorithms(mode: bool) -> None:
    """Call `torch.use_deterministic_algorithms`, but do not import the compiler for it."""
    if "torch._inductor" in sys.modules:
        torch.use_deterministic_algorithms(mode)
    else:
        torch._C._set_deterministic_algorithms(mode)


def postpone_compiler(wrapped: Any) -> None:
    """Change a function excluded from compilation so that a call does not import the compiler.

    Args:
        wrapped: the result of `torch._disable_dynamo`, which imports the compiler at its first
            call. After other code has imported the compiler, it behaves as before.
    """
    function = getattr(wrapped, "__wrapped__", None)
    if function is None or hasattr(function, "__dynamo_disable"):
        return

    def call(*args: Any, **kwargs: Any) -> Any:
        if "torch._dynamo" not in sys.modules:
            return function(*args, **kwargs)
        if getattr(function, "__dynamo_disable", None) is call:
            del function.__dynamo_disable
        return wrapped(*args, **kwargs)

    setattr(function, "__dynamo_disable", call)  # the wrapper calls this attribute


def custom_op(name: str) -> Callable[[Callable[..., Any]], CustomOpDef]:
    """Return a decorator that registers a function as `torch.ops.seqbench.<name>`.

    It is `torch.library.custom_op` without mutated arguments, plus `postpone_compiler`.
    """

    def register(function: Callable[..., Any]) -> CustomOpDef:
        op = torch.library.custom_op(f"seqbench::{name}", function, mutates_args=())
        for implementation in op._backend_fns.values():
            postpone_compiler(implementation)
        return op

    return register


def weight_norm(magnitude: Tensor, direction: Tensor) -> Tensor:
    """Return `magnitude * direction / |direction|`.

    Uses torch's fused operation, except under transforms that cannot differentiate it.

    Args:
        magnitude: `(out, 1, 1)`.
        direction: `(out, in, kernel_size)`.
    """
    if torch.compiler.is_compiling():  # which cannot trace the questions below
        return torch._weight_norm(direction, magnitude, 0)
    if is_differentiated_by_transform():
        norm = torch.linalg.vector_norm(direction, dim=(1, 2), keepdim=True)
        return magnitude * direction / norm
    if any(map(torch._C._functorch.is_batchedtensor, (direction, magnitude))):
        return _BatchedWeightNorm.apply(magnitude, direction)
    return torch._weight_norm(direction, magnitude, 0)


class _BatchedWeightNorm(torch.autograd.Function):
    """Weight norm of all models at once under `vmap`, whose fallback runs it once per model."""

    @staticmethod
    def forward(magnitude: Tensor, direction: Tensor) -> Tensor:
        """Raise NotImplementedError: under `vmap` the rule below is called instead."""
        raise NotImplementedError

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Save nothing: the operation in the rule has its own backward pass."""

    @staticmethod
    def vmap(
        info: Any, dims: tuple[int | None, ...], magnitude: Tensor, direction: Tensor
    ) -> tuple[Tensor, int]:
        """Compute the weights of all models as if they were the outputs of one."""
        magnitude, direction = (
            x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
            for x, dim in zip((magnitude, direction), dims, strict=True)
        )
        weight = torch._weight_norm(direction.flatten(0, 1), magnitude.flatten(0, 1), 0)
        return weight.view_as(direction), 0


def is_differentiated_by_transform() -> bool:
    """Return True inside forward-mode AD or any transform of `torch.func` but `vmap`.

    Custom operators only have rules for `vmap`: under reverse-mode transforms they fail, under
    forward mode they lose the tangents.
    """
    if torch.autograd.forward_ad._current_level >= 0:
        return True
    levels = torch._C._functorch.get_interpreter_stack() or ()
    return any(level.key() != torch._C._functorch.TransformType.Vmap for level in levels)


def has_bf16_tiles() -> bool:
    """Return True if the processor has matrix instructions for bfloat16 (AMX)."""
    return torch.cpu._is_amx_tile_supported()


def has_onednn_linear() -> bool:
    """Return True if `onednn_linear` can be called."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def onednn_linear(x: Tensor, weight: Tensor) -> Tensor:
    """Return `x W^T` of `(..., in)` and `(out, in)`, computed by oneDNN; has no gradient."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
