"""Provide second derivatives and a `vmap` rule for the custom operators.

Second derivatives come from the PyTorch reference; `vmap` calls the operator once per element.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree


def differentiable_gradients(
    function: Callable[..., Sequence[Tensor | None]],
    inputs: Sequence[Tensor | None],
    d_outputs: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """Return the gradients of the inputs by the reference; they can be differentiated again.

    Args:
        function: the reference, which maps `inputs` to outputs.
        inputs: inputs of the forward pass; `None` if absent.
        d_outputs: gradients of the outputs; `None`: zeros.

    Returns:
        One gradient per input; `None` if it needs none.
    """
    given = [None if x is None else x.view_as(x) for x in inputs]
    wanted = {i: x for i, x in enumerate(given) if x is not None and x.requires_grad}
    outputs = function(*given)
    pairs = [
        (y, d) for y, d in zip(outputs, d_outputs, strict=True) if y is not None and d is not None
    ]
    found = torch.autograd.grad(
        [y for y, _ in pairs],
        list(wanted.values()),
        [d for _, d in pairs],
        create_graph=True,
        allow_unused=True,
    )
    gradients: list[Tensor | None] = [None] * len(inputs)
    for i, gradient in zip(wanted, found, strict=True):
        gradients[i] = gradient
    return gradients


def one_by_one(op: Any) -> Callable[..., Any]:
    """Return a `vmap` rule that calls an operator once per element, and stacks the results."""

    def rule(info: Any, in_dims: Any, *args: Any) -> tuple[Any, Any]:
        values, structure = pytree.tree_flatten(args)
        dims, _ = pytree.tree_flatten(in_dims)
        # Not indexed one by one: the gradient of each index would fill a whole tensor.
        columns = [
            value.unbind(dim) if dim is not None else (value,) * info.batch_size
            for value, dim in zip(values, dims, strict=True)
        ]
        results = [op(*pytree.tree_unflatten(row, structure)) for row in zip(*columns, strict=True)]
        stacked = pytree.tree_map(lambda *parts: torch.stack(parts), *results)
        return stacked, pytree.tree_map(lambda _: 0, stacked)

    return rule
