"""Calling the compiled layers, which are made of `vectors.h`."""

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from seqbench.compiled import NotCompiled, library

# As the sources name the kinds of numbers.
REALS = {torch.float32: "float", torch.float64: "double"}


def can_run(source: Path, x: Tensor) -> bool:
    """Whether a source's layers can be run on such an input."""
    if x.device.type != "cpu" or x.dtype not in REALS or torch.is_autocast_enabled("cpu"):
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
) -> int:
    """Call a function of a source.

    Args:
        source: the C++ file.
        name: of the function, without the kind of number.
        real: of `REALS`.
        layer: the structure that it takes.
        fields: of the structure: numbers, and tensors, of which it gets the address.
    """
    function = library(source)[f"{name}_{REALS[real]}"]
    function.restype = ctypes.c_int64
    given = {
        name: field.data_ptr() if isinstance(field, Tensor) else field
        for name, field in fields.items()
    }
    return function(ctypes.byref(layer(threads=torch.get_num_threads(), **given)))
