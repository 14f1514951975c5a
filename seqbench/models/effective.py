"""Convert the parameters of a model to the weights that its layers compute with, and back.

A layer with weight normalisation has two parameters, a magnitude and a direction, and computes with
their product: the effective weight. Pruning and rounding are about effective weights.
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from seqbench.errors import ConfigError

# In the name of a parametrized weight's parameter, between its layer and the weight.
PARAMETRIZED = ".parametrizations."


def effective_name(name: str) -> str:
    """Return the name of the weight that a parameter belongs to: `conv.weight`."""
    layer, is_parametrized, rest = name.partition(PARAMETRIZED)
    return f"{layer}.{rest.partition('.')[0]}" if is_parametrized else name


def to_effective(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the effective weights, and all other tensors as they are.

    Args:
        model: has the layers; its own weights are not read.
        tensors: name -> parameter or buffer, of the model or of a larger one of its kind.

    Raises:
        ConfigError: if a weight is parametrized by anything else than weight normalisation.
    """
    found: dict[str, Tensor] = {}
    with torch.no_grad():
        for name, tensor in tensors.items():
            weight = effective_name(name)
            if weight == name:
                found[name] = tensor
            elif weight not in found:
                kind = parametrization(model, weight)
                found[weight] = kind(*(tensors[part] for part in originals(weight)))
    return found


def with_effective(
    model: nn.Module, tensors: Mapping[str, Tensor], changed: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return parameters and buffers with other effective weights; the others stay bit for bit.

    Where all weights of an output are 0, its magnitude is 0 and its direction is 1, since a
    direction of 0 has no length to divide by.

    Args:
        model: as for `to_effective`.
        tensors: name -> parameter or buffer.
        changed: name -> effective weight.
    """
    found = {n: tensor for n, tensor in tensors.items() if effective_name(n) not in changed}
    parametrized = {effective_name(name) for name in tensors if PARAMETRIZED in name}
    with torch.no_grad():
        for name, tensor in changed.items():
            if name not in parametrized:
                found[name] = tensor
                continue
            magnitude, direction = parametrization(model, name).right_inverse(tensor)
            direction = torch.where(magnitude == 0, torch.ones_like(direction), direction)
            found |= dict(zip(originals(name), (magnitude, direction), strict=True))
    return found


def originals(weight: str) -> tuple[str, str]:
    """Return the names of the magnitude and the direction of a weight."""
    layer, _, attribute = weight.rpartition(".")
    return tuple(f"{layer}{PARAMETRIZED}{attribute}.original{i}" for i in (0, 1))  # type: ignore[return-value]


def parametrization(model: nn.Module, weight: str) -> Any:
    """Return the module that computes a weight from its magnitude and direction.

    Raises:
        ConfigError: if that is no weight normalisation.
    """
    layer, _, attribute = weight.rpartition(".")
    kinds = cast(Any, model.get_submodule(layer)).parametrizations[attribute]
    if len(kinds) != 1 or not hasattr(kinds, "original1") or hasattr(kinds, "original2"):
        raise ConfigError(
            f"{weight} is parametrized by {', '.join(type(k).__name__ for k in kinds)}: a model "
            "can be made smaller if its weights are plain or have weight normalisation"
        )
    return kinds[0]


def matrices(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weight matrices and kernels among effective weights; no biases, norms, buffers."""
    names = {effective_name(name) for name, _ in model.named_parameters()}
    return {name: t for name, t in tensors.items() if name in names and is_matrix(t)}


def is_matrix(weight: Tensor) -> bool:
    """Return True if a weight is a matrix or a kernel, not one value or scale per channel."""
    # Weight norm scales a kernel `(out, in, width)` by `(out, 1, 1)`.
    return weight.ndim == 2 or (weight.ndim > 2 and weight[0].numel() > 1)
