"""Choose the parts of a paper's table that seqbench can measure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from seqbench.errors import ConfigError
from seqbench.results.papers import (
    PaperRow,
    PublishedCell,
    leaf,
    load_paper,
    option_text,
    read_paper,
)
from seqbench.results.where import MISSING, holds, terms


@dataclass(frozen=True)
class Target:
    """A model to measure on the task of a row of a paper's table.

    Attributes:
        model: seqbench's name of the model.
        row: the row.
        published: the paper's number; `None` for a model that the paper does not report.
    """

    model: str
    row: PaperRow
    published: PublishedCell | None

    @property
    def label(self) -> str:
        """Return task and model, as in `adding tcn` or `etth1 horizon=96 tcn`."""
        return f"{self.row.name} {self.model}"


def targets(paper: str, models: Sequence[str], only: str | None = None) -> list[Target]:
    """Return the parts of a paper's table that seqbench can measure, in the table's order.

    Args:
        paper: name of the paper.
        models: names of the available models.
        only: a filter on model, task and options of rows, as in `task=adding, model=tcn|gru`.

    Raises:
        ConfigError: if there is no such paper, `only` cannot be parsed, or no target is left.
    """
    found = all_targets(paper, models)
    keys = {"task", "model", *(leaf(key) for target in found for key, _ in target.row.options)}
    wanted = list(terms(only))
    for term, match in wanted:
        if match is None or match[1] not in keys or match[2] not in ("=", "==", "!="):
            raise ConfigError(
                f"--only wants 'task=adding, model=tcn|gru' (there are {', '.join(sorted(keys))}), "
                f"not '{term}'"
            )
    tests = [match.groups() for _, match in wanted if match]
    return [target for target in found if _matches(target, tests)] or _nothing(found, only)


def all_targets(paper: str, models: Sequence[str]) -> list[Target]:
    """Return all parts of a paper's table that seqbench can measure; see `targets`."""
    beside = read_paper(paper)["beside"]
    return [
        Target(model, row, cells.get(model))
        for row, cells in load_paper(paper).items()
        if row.run
        for model in dict.fromkeys([*cells, *beside])
        if model in models
    ]


def without_a_row(paper: str, models: Sequence[str], only: str) -> list[str]:
    """Return the values of a filter that no row has, as in `horizon=100`; see `targets`."""
    found = all_targets(paper, models)
    return [
        f"{key}={value}"
        for _, match in terms(only)
        if match
        for key, _, values in [match.groups()]
        for value in values.split("|")
        if not any(_matches(target, [(key, "=", value)]) for target in found)
    ]


def no_verdict(paper: str, found: Sequence[Target]) -> str | None:
    """Return why some targets will have no verdict, in a line; `None` if all may have one."""
    lacking = dict.fromkeys(target.model for target in found if not target.published)
    if not lacking:
        return None
    count = sum(not target.published for target in found)
    named = dict.fromkeys(model for target in found for model in load_paper(paper)[target.row])
    if not named:
        return f"no cell has a verdict: {paper} has no published scores"
    cells = "no cell has a" if count == len(found) else f"{count} of {len(found)} cells have no"
    return (
        f"{cells} verdict: {paper} publishes scores of {', '.join(named)} there, and none of "
        f"{', '.join(lacking)}"
    )


def _matches(target: Target, tests: Iterable[tuple[str, ...]]) -> bool:
    values = {"task": target.row.task, "model": target.model}
    values |= {leaf(key): option_text(value) for key, value in target.row.options}
    return all(holds(values.get(key, MISSING), sign, value) for key, sign, value in tests)


def _nothing(found: Sequence[Target], only: str | None) -> list[Target]:
    values: dict[str, dict[str, None]] = {}
    for target in found:
        named = [("task", target.row.task), ("model", target.model), *target.row.options]
        for key, value in named:
            values.setdefault(leaf(key), {})[option_text(value)] = None
    known = "; ".join(f"{key} is {', '.join(names)}" for key, names in values.items())
    raise ConfigError(f"nothing matches --only '{only}': {known}")
