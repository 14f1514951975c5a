"""Make a trained model smaller: prune weights, or remove units; see `config.compression`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from seqbench.models.effective import (
    matrices,
    originals,
    to_effective,
    with_effective,
)
from seqbench.models.sequence_model import SequenceModel
from seqbench.models.units import without_units


@dataclass(frozen=True)
class Pruned:
    """Weights of a model after pruning.

    Attributes:
        tensors: name -> parameter or buffer.
        kept: name of a parameter -> True where it is trained; False where it was pruned. Only
            parameters with pruned numbers are named.
    """

    tensors: Mapping[str, Tensor]
    kept: Mapping[str, Tensor] = field(default_factory=dict)


def pruned(model: SequenceModel, tensors: Mapping[str, Tensor], node: dict[str, Any]) -> Pruned:
    """Return the weights of a trained model as a compressed run starts with them.

    Args:
        model: the model of the compressed run.
        tensors: name -> parameter or buffer of the trained model.
        node: the config's `compress`.

    Raises:
        ConfigError: if the weights are not those of such a model.
    """
    if "units" in node:
        return Pruned(without_units(model, model.units(), tensors))
    if node.get("weights"):
        return without_weights(model, tensors, node["weights"], node.get("scope") == "layer")
    return Pruned(tensors)


def without_weights(
    model: nn.Module, tensors: Mapping[str, Tensor], share: float, by_layer: bool
) -> Pruned:
    """Set the smallest weights to 0: of matrices and kernels, not of biases and norms.

    Args:
        model: has the layers.
        tensors: name -> parameter or buffer.
        share: of the weights, rounded to a whole number of them; of equal ones the first go.
        by_layer: the share is of each matrix by itself, not of all of them together.
    """
    whole = matrices(model, to_effective(model, tensors))
    groups = [[name] for name in whole] if by_layer else [list(whole)]
    masks: dict[str, Tensor] = {}
    for names in groups:
        sizes = torch.cat([whole[name].abs().flatten() for name in names])
        mask = torch.ones_like(sizes, dtype=torch.bool)
        mask[sizes.argsort(stable=True)[: round(share * len(sizes))]] = False
        parts = mask.split([whole[name].numel() for name in names])
        masks |= {n: part.reshape(whole[n].shape) for n, part in zip(names, parts, strict=True)}
    masks = {name: mask for name, mask in masks.items() if not mask.all()}
    # `where`, since a product with 0 would keep the sign.
    changed = {n: torch.where(mask, whole[n], torch.zeros(())) for n, mask in masks.items()}
    kept: dict[str, Tensor] = {}
    for name, mask in masks.items():
        if name in tensors:
            kept[name] = mask
            continue
        magnitude, direction = originals(name)
        lives = mask.flatten(1).any(1).reshape(tensors[magnitude].shape)
        kept |= {magnitude: lives, direction: mask | ~lives}
    return Pruned(with_effective(model, tensors, changed), kept)


def train_only(model: nn.Module, kept: Mapping[str, Tensor]) -> None:
    """Set the gradients of pruned numbers to 0, so that the optimizer does not change them.

    All optimizers leave a number at 0 whose gradient has always been 0.

    Args:
        model: on the device that it is trained on.
        kept: see `Pruned`.
    """
    parameters = dict(model.named_parameters())
    for name, mask in kept.items():
        there = mask.to(parameters[name].device)
        parameters[name].register_hook(lambda gradient, there=there: gradient * there)


def zeros(model: nn.Module) -> int:
    """Return how many weights of a model's matrices and kernels are 0."""
    weights = matrices(model, to_effective(model, model.state_dict()))
    return sum(int((weight == 0).sum()) for weight in weights.values())
