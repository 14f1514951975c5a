"""Determine the best model of each task and the models statistically tied with it."""

from collections.abc import Sequence
from typing import Literal

from seqbench.results.aggregate import Cell, Column
from seqbench.results.statistics import distinguishable

Standing = Literal["best", "tied"]


def standings(cells: Sequence[Cell]) -> list[Standing | None]:
    """Return the standing of each cell among the cells of its column.

    `best` has the best mean; `tied` does not differ significantly from it over their shared seeds.
    All others have `None`, as do the only cell of a column with a score, and cells with a diverged
    run, since the mean of the remaining runs is biased.
    """
    columns: dict[Column, list[Cell]] = {}
    for cell in cells:
        columns.setdefault(cell.column, []).append(cell)
    best = {column: _best(members) for column, members in columns.items()}
    return [_standing(cell, best[cell.column]) for cell in cells]


def _best(cells: list[Cell]) -> Cell | None:
    competing = [cell for cell in cells if cell.statistics and not cell.diverged]
    if not competing or sum(cell.statistics is not None for cell in cells) < 2:
        return None
    choose = min if cells[0].column.direction == "min" else max
    return choose(competing, key=_mean)


def _standing(cell: Cell, best: Cell | None) -> Standing | None:
    if best is None or cell.statistics is None or cell.diverged:
        return None
    if _mean(cell) == _mean(best):
        return "best"
    return "tied" if distinguishable(cell.by_seed, best.by_seed) is False else None


def _mean(cell: Cell) -> float:
    assert cell.statistics is not None
    return cell.statistics.mean
