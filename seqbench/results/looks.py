"""Assign colours and dash patterns to models, the same in figures and reports."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from seqbench.config.choices import CONFIG_FOLDER
from seqbench.results.cells import Cell
from seqbench.wording import plain

# Number of colours and dash patterns in plots/axes.py, report/page.css and report/page.js.
COLOURS, DASHES = 7, 6


@dataclass(frozen=True)
class Look:
    """The look of a model's variant in lines and points.

    Attributes:
        label: the model with its variant.
        model: the model's name.
        colour: index of a colour, one per model.
        dash: index of a dash pattern, one per variant, for grayscale.
    """

    label: str
    model: str
    colour: int
    dash: int


def looks_of(cells: Iterable[Cell], others: Sequence[str] = ()) -> list[Look]:
    """Return the look of every model and variant, sorted by model.

    A model that comes with seqbench has the same colour in all figures and reports.

    Args:
        cells: the models and their variants.
        others: further model names, of runs that may be in no cell.
    """
    names = {(plain(cell.model), cell.label) for cell in cells}
    found = sorted(names, key=lambda name: (name[0], _natural(name[1]), name[1]))
    known = {name for name, _ in found}
    shipped = sorted(path.stem for path in (CONFIG_FOLDER / "model").glob("*.yaml"))
    foreign = sorted({plain(name) for name in others} | known - {*shipped})
    places = {name: i for i, name in enumerate(dict.fromkeys([*shipped, *foreign]))}
    found += [(name, name) for name in places if name in others and name not in known]
    variants = dict.fromkeys(places, 0)
    looks = []
    for name, label in found:
        place = places[name]
        dash = (place + variants[name] + place // COLOURS) % DASHES
        variants[name] += 1
        looks.append(Look(label, name, place % COLOURS, dash))
    return looks


def _natural(label: str) -> list[str | float]:
    """Return a sort key by which numbers come in their order: `dim=8` before `dim=16`."""
    parts = re.split(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)", label)
    return [float(part) if i % 2 else part for i, part in enumerate(parts)]
