"""States that a model carries from segment to segment: nested tuples of tensors, batch first."""

from typing import Any

import torch
from torch import Tensor

Carried = Any


def detached(tree: Carried) -> Carried:
    """A carried state without its history."""
    if isinstance(tree, Tensor):
        return tree.detach()
    return tuple(detached(branch) for branch in tree)


def rows(tree: Carried, part: int, parts: int) -> Carried:
    """The rows of a carried state that belong to one micro-batch; the batch is dimension 0."""
    if tree is None or parts == 1:
        return tree
    if isinstance(tree, Tensor):
        return tree.chunk(parts)[part]
    return tuple(rows(branch, part, parts) for branch in tree)


def joined(trees: list[Carried]) -> Carried:
    """The carried state of a batch from those of its micro-batches."""
    if len(trees) == 1 or trees[0] is None:
        return trees[0]
    if isinstance(trees[0], Tensor):
        return torch.cat(trees)
    return tuple(joined(list(branches)) for branches in zip(*trees, strict=True))


def flatten(tree: Carried, prefix: str) -> dict[str, Tensor]:
    """The tensors of nested tuples and lists, named by their place."""
    if isinstance(tree, Tensor):
        return {prefix: tree}
    flat: dict[str, Tensor] = {}
    for i, branch in enumerate(tree or ()):
        flat |= flatten(branch, f"{prefix}.{i}")
    return flat


def unflatten(flat: dict[str, Tensor], prefix: str) -> Carried:
    """Nested tuples from what `flatten` gave; `None` if there is nothing under `prefix`."""
    if prefix in flat:
        return flat[prefix]
    branches: list[Carried] = []
    while any(name.startswith(f"{prefix}.{len(branches)}") for name in flat):
        branches.append(unflatten(flat, f"{prefix}.{len(branches)}"))
    return tuple(branches) or None
