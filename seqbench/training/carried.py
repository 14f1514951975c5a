"""Transform carried states: nested tuples of `(batch, ...)` tensors, kept between segments."""

from typing import Any

import torch
from torch import Tensor

Carried = Any


def detached(tree: Carried) -> Carried:
    """Return a carried state detached from the autograd graph."""
    if isinstance(tree, Tensor):
        return tree.detach()
    return tuple(detached(branch) for branch in tree)


def rows(tree: Carried, part: int, parts: int) -> Carried:
    """Return micro-batch number `part` (from 0) of `parts` of a carried state."""
    if tree is None or parts == 1:
        return tree
    if isinstance(tree, Tensor):
        return tree.chunk(parts)[part]
    return tuple(rows(branch, part, parts) for branch in tree)


def joined(trees: list[Carried]) -> Carried:
    """Concatenate the carried states of micro-batches to that of their batch."""
    if len(trees) == 1 or trees[0] is None:
        return trees[0]
    if isinstance(trees[0], Tensor):
        return torch.cat(trees)
    return tuple(joined(list(branches)) for branches in zip(*trees, strict=True))


def flatten(tree: Carried, prefix: str) -> dict[str, Tensor]:
    """Return the tensors of nested tuples or lists by position: `prefix`, or `prefix.0.1`.

    A branch without tensors is an empty tensor under `prefix.0.1:`.
    """
    if isinstance(tree, Tensor):
        return {prefix: tree}
    flat: dict[str, Tensor] = {}
    for i, branch in enumerate(tree or ()):
        name = f"{prefix}.{i}"
        flat |= flatten(branch, name) or {f"{name}:": torch.empty(0)}
    return flat


def unflatten(flat: dict[str, Tensor], prefix: str) -> Carried:
    """Return nested tuples from a result of `flatten`; `None` if it has nothing under `prefix`."""
    if prefix in flat:
        return flat[prefix]
    if f"{prefix}:" in flat:
        return ()
    branches: list[Carried] = []
    while any(name.startswith(f"{prefix}.{len(branches)}") for name in flat):
        branches.append(unflatten(flat, f"{prefix}.{len(branches)}"))
    return tuple(branches) or None
