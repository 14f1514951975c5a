"""Calling the compiled layers, which are made of `vectors.h`."""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqbench.compiled import NotCompiled, library

# As the sources name the kinds of numbers.
NAMES = {torch.float32: "float", torch.float64: "double", torch.bfloat16: "bfloat16"}
REALS = (torch.float32, torch.float64)  # those that every layer knows


switched_off = False

# Names of the sources of which a layer was run; whoever starts a run empties it.
ran: set[str] = set()


@contextmanager
def off() -> Iterator[None]:
    """Have all layers run as torch has them, for whom wants to see what they do."""
    global switched_off
    before, switched_off = switched_off, True
    try:
        yield
    finally:
        switched_off = before


def allowed(x: Tensor, *others: Tensor, autocast: bool = False) -> bool:
    """Whether layers of ours may run on an input and others, which must be of its kind; those that
    do as autocast says also under it.
    """
    if x.device.type != "cpu" or x.dtype not in REALS:
        return False
    if torch.is_autocast_enabled("cpu") and not autocast:
        return False
    if any(other.dtype != x.dtype or other.device != x.device for other in others):
        return False  # torch says what is wrong
    # Torch's compiler cannot look into these.
    return not switched_off and not torch.compiler.is_compiling()


def can_run(source: Path, x: Tensor, *others: Tensor, autocast: bool = False) -> bool:
    """Whether a source's layers can be run on an input and others."""
    if not allowed(x, *others, autocast=autocast):
        return False
    try:
        library(source)
    except NotCompiled:
        return False
    return True


def whole(size: int, source: Path, real: torch.dtype) -> int:
    """A size, filled up to whole vectors of numbers."""
    return size + -size % (library(source).vector_bytes() // real.itemsize)


def call(
    source: Path, name: str, real: torch.dtype, layer: type[ctypes.Structure], **fields: object
) -> None:
    """Call a function of a source.

    Args:
        source: the C++ file.
        name: of the function, without the kind of number.
        real: of `NAMES`.
        layer: the structure that it takes.
        fields: of the structure: numbers, and tensors, of which it gets the address.

    Raises:
        RuntimeError: on a way back that is itself to be differentiated.
    """
    given = {
        name: field.data_ptr() if isinstance(field, Tensor) else field
        for name, field in fields.items()
    }
    made = layer(threads=torch.get_num_threads(), **given)
    run(source, name, real, ctypes.addressof(made))


def run(source: Path, name: str, real: torch.dtype, address: int) -> None:
    """Call a function of a source on what stands at an address.

    Args:
        source: the C++ file.
        name: of the function, without the kind of number.
        real: of `NAMES`.
        address: of the structure that it takes.

    Raises:
        RuntimeError: on a way back that is itself to be differentiated.
    """
    if torch.is_grad_enabled():
        raise RuntimeError("compiled layers have no second derivatives; CXX=false takes torch's")
    ran.add(source.stem)
    function = getattr(library(source), f"{name}_{NAMES[real]}")
    function.restype = None
    function(ctypes.c_void_p(address))


def one_by_one(
    function: Callable[..., Any],
    count: int,
    dims: tuple[int | None, ...],
    inputs: tuple[object, ...],
) -> tuple[Any, Any]:
    """What a function's `vmap` returns, had by calling it so many times.

    Args:
        function: of one or several outputs.
        count: size of the dimension that is mapped.
        dims: which it is of each input; `None`: all have that one.
        inputs: of the function.
    """
    # Unbound at once: on the way back what was selected one by one would each fill a whole tensor.
    parts = [
        value.unbind(dim) if isinstance(value, Tensor) and dim is not None else (value,) * count
        for value, dim in zip(inputs, dims, strict=True)
    ]
    found = [function(*each) for each in zip(*parts, strict=True)]
    if isinstance(found[0], Tensor):
        return torch.stack(found), 0
    return tuple(map(torch.stack, zip(*found, strict=True))), (0,) * len(found[0])
