"""Which model is best on a task, and which cannot be told from it."""

from collections.abc import Sequence
from typing import Literal

from seqbench.results.aggregate import Cell, Column
from seqbench.results.statistics import distinguishable

Standing = Literal["best", "tied"]


def standings(cells: Sequence[Cell]) -> list[Standing | None]:
    """For each cell how it stands among those of its column, which alone may be compared.

    `best` has the best mean; `tied` cannot be told from it over the seeds that both have. A model
    on its own is neither, nor is one of which a run diverged: what survived says too much.
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
