"""Load published results (configs/paper/) and check that measured scores are comparable to them."""

import difflib
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache
from typing import Any, Literal

import yaml

from seqbench.config.choices import CONFIG_FOLDER
from seqbench.errors import ConfigError
from seqbench.results.aggregate import Cell
from seqbench.results.recipe import other_amount
from seqbench.runs.config_file import YamlLoader
from seqbench.runs.record import Record

# Largest accepted ratio of parameter counts: published ones are rounded, and some differ by a third
# from what the published settings give.
SIZE_RATIO = 1.5
# Splits of test scores: with the weights chosen on validation, or the mean of the last evaluations.
ON_TEST = ("test", "test_mean")


@dataclass(frozen=True)
class PublishedCell:
    """One number of a published table.

    Attributes:
        paper: name of the paper's file.
        task: seqbench's name of the task.
        model: seqbench's name of the model.
        run: True if seqbench has the task.
        printed: the number as printed, in `unit`.
        value: the number in the unit of records, accuracies as fractions.
        metric: seqbench's name of the metric.
        direction: `min` or `max`, whichever is better.
        unit: unit of `printed`; empty if it has none.
        length: the sequence length in time steps, if the task has one.
        size: the paper's parameter count, rounded as printed.
        tokens: time steps in one pass over the training data, rounded; only for tasks that seqbench
            has.
        budget: the budget that reproduces the paper's training.
        protocol: the protocol that reproduces the paper's choices.
        reduction: how the paper reduces several runs or evaluations to this number.
        caveats: contradictions between paper, code and arithmetic about this number.
        source: where in the paper it is printed.
    """

    paper: str
    task: str
    model: str
    run: bool
    printed: str
    value: float
    metric: str
    direction: Literal["min", "max"]
    unit: str
    length: int | None
    size: int | None
    tokens: int | None
    budget: str
    protocol: str
    reduction: str
    caveats: tuple[str, ...]
    source: str


def papers() -> list[str]:
    """Return the names of the available papers, oldest first; a name ends with its year."""
    names = (path.stem for path in (CONFIG_FOLDER / "paper").glob("*.yaml"))
    return sorted(names, key=lambda name: (name[-4:], name))


@cache
def read_paper(name: str) -> dict[str, Any]:
    """Return the parsed YAML file of a paper.

    Raises:
        ConfigError: if there is no such paper.
    """
    if name not in papers():
        near = difflib.get_close_matches(name, papers(), n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(papers())}"
        raise ConfigError(f"no paper named '{name}' ({hint})")
    return yaml.load((CONFIG_FOLDER / "paper" / f"{name}.yaml").read_bytes(), Loader=YamlLoader)


@cache
def load_paper(name: str) -> tuple[PublishedCell, ...]:
    """Return all cells of a paper's table, in its order.

    Raises:
        ConfigError: if there is no such paper.
    """
    paper = read_paper(name)
    cells = []
    for row in paper["rows"]:
        for model, printed in row["values"].items():
            numbers = [*row["caveats"].get("all", []), *row["caveats"].get(model, [])]
            cells.append(
                PublishedCell(
                    paper=name,
                    task=row["task"],
                    model=model,
                    run=row["run"],
                    printed=printed,
                    value=float(Decimal(printed) / (100 if row["unit"] == "%" else 1)),
                    metric=row["metric"],
                    direction=row["direction"],
                    unit=row["unit"],
                    length=row["length"],
                    size=row["size"],
                    tokens=row.get("tokens"),
                    budget=paper["budget"],
                    protocol=paper["protocol"],
                    reduction=paper["reduction"],
                    caveats=tuple(paper["caveats"][number] for number in sorted(numbers)),
                    source=paper["source"],
                )
            )
    return tuple(cells)


def published(paper: str, task: str, model: str) -> PublishedCell | None:
    """Return the paper's cell for a model on a task, or `None` if it reports none.

    Raises:
        ConfigError: if there is no such paper.
    """
    cells = (cell for cell in load_paper(paper) if (cell.task, cell.model) == (task, model))
    return next(cells, None)


def protocols() -> set[str]:
    """Return the names of the protocols that come with seqbench."""
    return {path.stem for path in (CONFIG_FOLDER / "protocol").glob("*.yaml")}


def like_for_like(record: Record, cell: PublishedCell, *, any_protocol: bool = False) -> str | None:
    """Return why a run's score is not comparable to a published number; `None` if it is.

    Args:
        record: the run's record.
        cell: the published number.
        any_protocol: accept every protocol that comes with seqbench, not only the paper's.
    """
    passes = protocols() if any_protocol else {cell.protocol}
    reasons = []
    if record.score and record.score.metric != cell.metric:
        reasons.append(f"published {cell.metric}, here {record.score.metric}")
    if record.score and record.score.split not in ON_TEST:
        reasons.append(f"published on test, here on {record.score.split}")
    if cell.length is not None and record.length != cell.length:
        reasons.append(f"published at T={cell.length}, here {_length(record)}")
    if record.budget != cell.budget:
        reasons.append(f"budget {record.budget or 'of your own'} instead of {cell.budget}")
    elif (other := other_amount(record.config)) and other_amount(
        record.config | {"protocol": cell.protocol}  # nor the amount that the paper's protocol sets
    ):
        reasons.append(other)
    if record.protocol not in passes:
        reasons.append(f"protocol {record.protocol or 'of your own'} instead of {cell.protocol}")
    if cell.size and record.parameters and _ratio(record.parameters, cell.size) > SIZE_RATIO:
        reasons.append(f"{record.parameters:,} parameters instead of about {cell.size:,}")
    return ", ".join(reasons) or None


def unlike(cell: Cell, found: PublishedCell, *, any_protocol: bool = False) -> str | None:
    """Return `like_for_like` for a cell, whose runs differ in the seed only."""
    # Prefer a run with a score: one that failed early lacks its score and parameter count.
    runs = sorted(cell.records, key=lambda record: record.score is None)
    typical = replace(runs[0], parameters=cell.parameters)
    return like_for_like(typical, found, any_protocol=any_protocol)


def _length(record: Record) -> str:
    return "no length" if record.length is None else f"T={record.length}"


def _ratio(a: int, b: int) -> float:
    return max(a, b) / max(1, min(a, b))
