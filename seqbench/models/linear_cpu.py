"""Linear layers without a bias on a CPU, by the kernels that torch's compiler takes for them.

Torch has two libraries for products of matrices: its `linear` takes MKL, its compiler oneDNN. On an
AMD EPYC the first got 65 to 85 % of what the processor can, the second 90 % and more. Two large
operands, both transposed, oneDNN would copy first, so the gradient of the weights stays with MKL.
"""

from typing import Any

import torch
from torch import Tensor, nn

from seqbench.models.vectors import allowed, one_by_one


class Linear(nn.Linear):
    """`x W^T`.

    Args:
        inputs: width of the input.
        outputs: width of the output.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(..., inputs)` to `(..., outputs)`."""
        if pays(x, self.weight):
            return LinearFunction.apply(x, self.weight)
        return super().forward(x)


def pays(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN can take a product, and makes up for a call that takes longer.

    Args:
        x: `(..., inputs)`.
        weight: `(outputs, inputs)`.
    """
    return (
        allowed(x, weight)
        and x.dtype == torch.float32
        and x.shape[-1] == weight.shape[1]  # torch says what is wrong
        and x.numel() * len(weight) >= 2**27
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


class LinearFunction(torch.autograd.Function):
    """`x W^T`."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        """From `(..., inputs)` and `(outputs, inputs)` to `(..., outputs)`."""
        return product(x, weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """Keep what the way back needs."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
        """Under `torch.vmap`: one after another."""
        return one_by_one(LinearFunction.apply, info.batch_size, in_dims, inputs)

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Carry gradients back."""
        x, weight = ctx.saved_tensors
        d_x = d_weight = None
        if ctx.needs_input_grad[0]:
            d_x = product(d_y, weight.t())
        if ctx.needs_input_grad[1]:
            d_weight = d_y.reshape(-1, len(weight)).t() @ x.reshape(-1, weight.shape[1])
        return d_x, d_weight


def product(x: Tensor, weight: Tensor) -> Tensor:
    """`x W^T` of `(..., inputs)` and `(outputs, inputs)`."""
    if torch.is_grad_enabled():  # second derivatives: oneDNN's has none
        return x @ weight.t()
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
