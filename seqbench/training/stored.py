"""Store the weights of a compressed run: rounded, and without the zeros that pruning made.

A weight `model.X` of a file is a plain tensor, or has parts beside it:

- `scale.model.X`: the weight holds int8; a number is the integer times the scale of its output.
- `nonzero.model.X` and `shape.model.X`: the weight holds its nonzero numbers only, one after the
  other; the bits, eight in a byte and the lowest first, say where in the shape they are.

`packed` writes this form, and everything that loads weights reads it with `unpacked`.
"""

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from seqbench.errors import RunError
from seqbench.models.effective import (
    matrices,
    originals,
    to_effective,
    with_effective,
)

# How the numbers are stored; int8 has a scale for each output of a weight matrix, and all other
# numbers in fp32.
Kind = Literal["fp32", "fp16", "bf16", "int8-weights"]
HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}
MODEL, SCALE, NONZERO, SHAPE = "model.", "scale.", "nonzero.", "shape."
# Integers of int8 are from -127 to 127.
LEVELS = 127


def packed(model: nn.Module, tensors: Mapping[str, Tensor], kind: Kind) -> dict[str, Tensor]:
    """Return the weights of a model as they are stored.

    Args:
        model: has the layers.
        tensors: name -> weight, as `weights` returns them.
        kind: how the numbers are stored.
    """
    plain = {name.removeprefix(MODEL): t.detach().cpu() for name, t in tensors.items()}
    scales: dict[str, Tensor] = {}
    if kind in HALVES:
        plain = {n: t.to(HALVES[kind]) if t.is_floating_point() else t for n, t in plain.items()}
    elif kind == "int8-weights":
        kernels = matrices(model, to_effective(model, plain))
        # A weight that is not finite stays, and ends the run when it is scored.
        kernels = {name: w for name, w in kernels.items() if bool(w.isfinite().all())}
        steps = {name: step_of(w) for name, w in kernels.items()}
        rounded = {name: (w / steps[name]).round() * steps[name] for name, w in kernels.items()}
        plain = with_effective(model, plain, rounded)
        for name, step in steps.items():
            own = name if name in plain else originals(name)[1]
            plain[own] = (plain[own] / step).round().to(torch.int8)
            scales[own] = step
    stored: dict[str, Tensor] = {}
    for name, tensor in plain.items():
        stored |= sparse(f"{MODEL}{name}", tensor)
        if name in scales:
            stored[f"{SCALE}{MODEL}{name}"] = scales[name]
    return stored


def step_of(weight: Tensor) -> Tensor:
    """Return the scale of each output, `(out, 1, ...)`: its largest weight becomes 127."""
    largest = weight.abs().flatten(1).amax(1) / LEVELS
    step = torch.where(largest == 0, torch.ones_like(largest), largest)
    return step.reshape(-1, *[1] * (weight.ndim - 1))


def sparse(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """Return a weight with its nonzero numbers only, if that takes fewer bytes."""
    flat = tensor.reshape(-1)
    # A zero with a sign is kept, so that loading is exact to the bit.
    nonzero = flat.signbit() | (flat != 0)
    saved = int((~nonzero).sum()) * flat.element_size()
    if saved <= flat.numel() / 8 + 8 * tensor.ndim:
        return {name: tensor}
    bits = np.packbits(nonzero.numpy(), bitorder="little")
    return {
        name: flat[nonzero],
        f"{NONZERO}{name}": torch.from_numpy(bits),
        f"{SHAPE}{name}": torch.tensor(tensor.shape),
    }


def unpacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a file with every weight as a plain tensor.

    Raises:
        RunError: if the parts of a weight do not fit together.
    """
    found = dict(tensors)
    for key in [key for key in tensors if key.startswith(f"{NONZERO}{MODEL}")]:
        name = key.removeprefix(NONZERO)
        try:
            shape = found.pop(f"{SHAPE}{name}").tolist()
            found[name] = dense(found[name], found.pop(key), shape)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise RunError(f"the weight {name} is damaged: {error}") from error
    for key in [key for key in tensors if key.startswith(f"{SCALE}{MODEL}")]:
        name, step = key.removeprefix(SCALE), found.pop(key)
        weight = found.get(name)
        if weight is None or step.shape != (*weight.shape[:1], *[1] * (weight.ndim - 1)):
            raise RunError(f"the scale of {name} does not fit it")
        found[name] = weight * step
    return found


def dense(values: Tensor, bits: Tensor, shape: list[int]) -> Tensor:
    """Return the tensor of a shape with values where bits are set, and 0 elsewhere.

    Raises:
        ValueError: if they do not fit together.
    """
    count = math.prod(shape)
    if min(shape, default=0) < 1 or bits.dtype != torch.uint8 or len(bits) != -(-count // 8):
        raise ValueError(f"{bits.numel()} bytes of bits for the shape {shape}")
    nonzero = torch.from_numpy(np.unpackbits(bits.numpy(), count=count, bitorder="little")).bool()
    if values.ndim != 1 or len(values) != int(nonzero.sum()):
        raise ValueError(f"{values.numel()} values for {int(nonzero.sum())} bits")
    found = values.new_zeros(count)
    found[nonzero] = values
    return found.reshape(shape)
