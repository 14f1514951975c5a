"""A CUDA graph's double for machines without a GPU: a tape of torch's operations on a CPU.

It is replayed as a graph is. Each operation is done again, on the tensors that it had and into
those that it gave: what was a number in Python stays as it was, what is in a tensor is read anew.
As a capture does, it leaves nothing done, and refuses operations for which Python would have to
wait.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

# On a GPU these wait for it, or copy from Python's side.
WAITS = {
    *("_local_scalar_dense", "nonzero", "equal", "masked_select", "_unique2", "unique_dim"),
    *("unique_consecutive", "repeat_interleave", "lift_fresh"),
}
NO_KERNEL = {"empty", "empty_like", "empty_strided", "transpose_", "t_", "squeeze_", "unsqueeze_"}


def memory(tree: Any) -> dict[int, torch.UntypedStorage]:
    """Return the storages of the tensors of a tree, by address."""
    found = (x.untyped_storage() for x in tree_leaves(tree) if isinstance(x, Tensor))
    return {storage.data_ptr(): storage for storage in found}


class Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.played: list[tuple[Callable[..., Any], Any, Any, Any]] = []
        self.made: dict[int, torch.UntypedStorage] = {}
        self.before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        masks = func._schema.name == "aten::index" and any(
            x is not None and x.dtype == torch.bool for x in args[1]
        )
        if func._schema.name.removeprefix("aten::") in WAITS or masks:
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}\nmore")
        given = memory((args, kwargs))
        if func._schema.is_mutable:
            for address, storage in given.items():
                if address not in self.made and address not in self.before:
                    self.before[address] = storage, storage.clone()
        result = func(*args, **(kwargs or {}))
        self.made |= {k: v for k, v in memory(result).items() if k not in given}
        # As they are now: operations in place may give a tensor another shape.
        now = tree_map_only(Tensor, Tensor.detach, (args, kwargs or {}, result))
        self.played.append((func, *now))
        return result

    def undo(self) -> None:
        for storage in self.made.values():
            storage.fill_(255)  # floats of these bytes are NaN: nothing was computed yet
        for storage, before in self.before.values():
            storage.copy_(before)

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, result in self.played:
            if func._schema.name.removeprefix("aten::") in NO_KERNEL:
                continue
            again = func(*args, **kwargs)
            given = memory((args, kwargs))
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                # What lies where something given lies is as it must be already.
                if isinstance(old, Tensor) and not memory(old).keys() & given.keys():
                    old.copy_(new)


def capture(call: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
    """Capture like `seqbench.training.graph.capture`."""
    random = torch.get_rng_state()
    with Tape() as tape:
        result = call()
    tape.undo()
    torch.set_rng_state(random)
    return tape.replay, result
