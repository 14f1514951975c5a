"""Remove whole units of a trained model: channels, hidden units or attention heads.

A model lists its units in groups. The units of a group are numbered, and a `Place` says where in a
weight the numbers of each unit are. To remove a unit is to leave out all its numbers. Of each group
those units stay that have the largest L2 norm: the root of the sum of squares of all numbers that
would be left out, the weights that compute the unit, its biases, and the weights that read it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seqbench.errors import ConfigError
from seqbench.models.effective import to_effective, with_effective


@dataclass(frozen=True)
class Place:
    """Where a weight has the numbers of each unit of a group.

    Along the dimension, the weight has `parts` stretches of equal length, one after the other, and
    in each of them the units in order, each with the same number of rows.

    Attributes:
        weight: name of the effective weight, such as `blocks.0.conv1.weight`.
        dim: its dimension.
        parts: number of stretches: the gates of a recurrent layer; 1 for most layers.
    """

    weight: str
    dim: int = 0
    parts: int = 1

    def by_unit(self, weight: Tensor, units: int) -> Tensor:
        """Return a view `(parts, units, rows, rest)` of a weight that has this number of units."""
        return weight.movedim(self.dim, 0).reshape(self.parts, units, -1, *_rest(weight, self.dim))

    def kept(self, weight: Tensor, units: int, chosen: Tensor) -> Tensor:
        """Return a weight with the chosen units only."""
        found = self.by_unit(weight, units)[:, chosen].flatten(0, 2)
        return found.movedim(0, self.dim).contiguous()


def _rest(weight: Tensor, dim: int) -> list[int]:
    return [size for i, size in enumerate(weight.shape) if i != dim]


@dataclass(frozen=True)
class Units:
    """A group of units, of which a smaller model has fewer.

    Attributes:
        name: for messages: `hidden units of layer 0`.
        count: units in this model.
        places: of each weight that computes or reads them.
    """

    name: str
    count: int
    places: Sequence[Place]


def fewer(count: int, share: float) -> int:
    """Return how many of `count` units stay if a share of them is removed, at least one."""
    return max(1, count - math.floor(count * share + 0.5))


def without_units(
    model: nn.Module, groups: Sequence[Units], tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the tensors of a larger model, cut to the units that fit into a smaller one.

    Args:
        model: the smaller model.
        groups: its units.
        tensors: name -> parameter or buffer of the larger model.

    Raises:
        ConfigError: if the larger model is of another kind.
    """
    own, whole = (to_effective(model, t) for t in (model.state_dict(), tensors))
    cut = dict(whole)
    try:
        for units in groups:
            count = count_in(units, own, whole)
            if count == units.count:
                continue
            chosen = strongest(norms(units, count, whole), units.count)
            for place in units.places:
                cut[place.weight] = place.kept(cut[place.weight], count, chosen)
    except (IndexError, KeyError, RuntimeError, ZeroDivisionError) as error:
        raise ConfigError(f"the weights are not those of a larger model: {error}") from error
    changed = {name: tensor for name, tensor in cut.items() if tensor is not whole[name]}
    return with_effective(model, tensors, changed)


def count_in(units: Units, own: Mapping[str, Tensor], whole: Mapping[str, Tensor]) -> int:
    """Return how many units a group has in a larger model, given both models' weights."""
    place = units.places[0]
    rows = own[place.weight].shape[place.dim] // units.count
    return whole[place.weight].shape[place.dim] // rows


def norms(units: Units, count: int, weights: Mapping[str, Tensor]) -> Tensor:
    """Return the L2 norm of each unit of a group, `(count,)`, over all places in float64.

    Args:
        units: the group.
        count: its units in the weights.
        weights: name -> effective weight.
    """
    parts = [place.by_unit(weights[place.weight], count).double() for place in units.places]
    squares = [part.square().movedim(1, 0).flatten(1).sum(1) for part in parts]
    return torch.stack(squares).sum(0).sqrt()


def strongest(norms: Tensor, count: int) -> Tensor:
    """Return the indices of the largest norms in ascending order; of equal ones the first."""
    return norms.argsort(descending=True, stable=True)[:count].sort().values
