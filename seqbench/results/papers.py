"""Load published results (configs/paper/), and judge if runs are comparable and reproduce them.

Verdicts are conservative. Runs of another length, metric or budget are not comparable, nor are
cells with a failed or diverged run. Fewer than three seeds give only a hint. The published value is
itself one draw, so it is compared with the prediction interval of one more run. If that interval is
too wide to exclude a difference that matters, the verdict is `cannot tell`. Runs with another
protocol of seqbench (settings and selection split) still get a verdict, with the difference as its
reason: users want to know if a result holds under a stricter protocol.
"""

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache
from typing import Any, NamedTuple

import yaml

from seqbench.config.choices import CONFIG_FOLDER
from seqbench.errors import ConfigError
from seqbench.results.cells import Cell, Direction
from seqbench.results.recipe import amount_differences
from seqbench.results.statistics import (
    FEWEST_SEEDS,
    IDENTITY,
    prediction_interval,
    scale_of,
)
from seqbench.runs.config_file import YamlLoader
from seqbench.runs.record import Record
from seqbench.wording import number

# Largest accepted ratio of parameter counts: published ones are rounded, and some differ by a third
# from what the published settings give.
SIZE_RATIO = 1.5
# Splits of test scores: with the weights chosen on validation, or the mean of the last evaluations.
ON_TEST = ("test", "test_mean")
LIKE = "like for like"
# Verdicts that need an explanation, and the explanation.
EXPLAINED = {"reproduced", "better", "worse", "cannot tell"}
EXPLANATION = (
    "reproduced: the published value lies within the 95% prediction interval of one more run"
    " (t sd sqrt(1 + 1/n), of log errors or of the logit of accuracies), or equals the mean as"
    " rounded in print; better, worse: it lies outside; cannot tell: the interval reaches further"
    " than scores that count as alike, which are up to a tenth of the way from the published value"
    " to the baseline"
)
# A difference that matters, as a share of the way from the published value to the baseline; and the
# smallest one, a factor of the error or of the odds.
SHARE_THAT_MATTERS = 0.1
SMALLEST_THAT_MATTERS = math.log(1.01)


@dataclass(frozen=True)
class PaperRow:
    """A row of a paper's table: a task, and how its scores are measured.

    Attributes:
        paper: name of the paper's file.
        task: seqbench's name of the task.
        run: True if `seqbench reproduce` trains the task.
        metric: seqbench's name of the metric.
        direction: `min` or `max`, whichever is better.
        unit: unit of printed numbers; empty if they have none.
        options: settings that tell rows of one task apart, as `("horizon", 96)` for one of the task
            and `("model.norm", "layer")` for another; lists as tuples.
        settings: settings that all rows of the table have, in the same form.
        length: the sequence length in time steps, if the task has one and the paper prints it.
        size: the paper's parameter count, rounded as printed.
        tokens: time steps in one pass over the training data, rounded; only for tasks that seqbench
            has.
        budget: the budget that reproduces the paper's training.
        protocol: the protocol that reproduces the paper's choices; `published` if none does.
        split: the split of the published scores.
    """

    paper: str
    task: str
    run: bool
    metric: str
    direction: Direction
    unit: str
    options: tuple[tuple[str, Any], ...]
    settings: tuple[tuple[str, Any], ...]
    length: int | None
    size: int | None
    tokens: int | None
    budget: str
    protocol: str
    split: str

    @property
    def name(self) -> str:
        """Return the task with the options of the row, as in `etth1 horizon=96`."""
        return " ".join([self.task, *(f"{leaf(key)}={option_text(v)}" for key, v in self.options)])

    @property
    def overrides(self) -> list[str]:
        """Return the overrides that choose the row."""
        chosen = [
            f"{'.'.join(_path(key))}={option_text(value)}"
            for key, value in (*self.settings, *self.options)
        ]
        return [f"task={self.task}", *chosen]

    def is_of(self, config: Mapping[str, Any]) -> bool:
        """Return True if the config of a run has the options of the row."""
        for key, value in (*self.settings, *self.options):
            group, name = _path(key)
            node = config.get(group)
            if not isinstance(node, Mapping) or _hashable(node.get(name)) != value:
                return False
        return True


@dataclass(frozen=True)
class PublishedCell:
    """One number of a published table.

    Attributes:
        row: the row of the table.
        model: seqbench's name of the model.
        printed: the number as printed, in the unit of the row.
        value: the number in the unit of records, accuracies as fractions.
        caveats: contradictions between paper, code and arithmetic about this number.
    """

    row: PaperRow
    model: str
    printed: str
    value: float
    caveats: tuple[str, ...]

    @property
    def text(self) -> str:
        """Return the number with its unit."""
        return f"{self.printed} {self.row.unit}".strip()

    @property
    def rounding(self) -> float:
        """Return half a unit of the last printed digit, in the unit of records."""
        exponent = Decimal(self.printed).as_tuple().exponent
        assert isinstance(exponent, int)  # papers print no NaN or infinity
        half = Decimal(5).scaleb(exponent - 1)
        # Add 1e-9 relative tolerance: decimals that end in 5 have no exact binary representation.
        return float(half / (100 if self.row.unit == "%" else 1)) * (1 + 1e-9)


class Verdict(NamedTuple):
    """A verdict on a published number, and the reason that limits it."""

    words: str
    reason: str = ""


def _path(key: str) -> tuple[str, str]:
    """Return the group of an option and its name in the group."""
    group, _, name = key.rpartition(".")
    return group or "task", name


def leaf(key: str) -> str:
    """Return the name of an option without its group."""
    return _path(key)[1]


def option_text(value: Any) -> str:
    """Return the value of an option as an override has it."""
    if value is None:
        return "null"
    return f"[{','.join(map(str, value))}]" if isinstance(value, tuple) else str(value)


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _options(given: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple((key, _hashable(value)) for key, value in given.items())


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
def load_paper(name: str) -> dict[PaperRow, dict[str, PublishedCell]]:
    """Return model -> published number for each row of a paper's table, in its order.

    Raises:
        ConfigError: if there is no such paper.
    """
    paper = read_paper(name)
    table: dict[PaperRow, dict[str, PublishedCell]] = {}
    for given in paper["rows"]:
        facts = {key: given[key] for key in ("task", "run", "metric", "direction", "unit")}
        facts |= {key: given.get(key) for key in ("length", "size", "tokens")}
        row = PaperRow(
            paper=name,
            options=_options(given.get("options", {})),
            settings=_options(paper.get("settings", {})),
            budget=paper["budget"],
            protocol=paper["protocol"],
            split=paper.get("split", "test"),
            **facts,
        )
        table[row] = {}
        for model, printed in given["values"].items():
            numbers = [*given["caveats"].get("all", []), *given["caveats"].get(model, [])]
            table[row][model] = PublishedCell(
                row,
                model,
                printed,
                value=float(Decimal(printed) / (100 if row.unit == "%" else 1)),
                caveats=tuple(paper["caveats"][number] for number in sorted(numbers)),
            )
    return table


def published(paper: str, record: Record) -> PublishedCell | None:
    """Return the paper's cell for the model and task of a run, or `None` if it reports none.

    Raises:
        ConfigError: if there is no such paper.
    """
    for row, cells in load_paper(paper).items():
        if row.task == record.task and record.model in cells and row.is_of(record.config):
            return cells[record.model]
    return None


def protocols() -> set[str]:
    """Return the names of the protocols that come with seqbench."""
    return {path.stem for path in (CONFIG_FOLDER / "protocol").glob("*.yaml")}


def differences(
    record: Record, cell: PublishedCell, *, any_protocol: bool = False
) -> Iterator[str]:
    """Yield why a run's score is not comparable to a published number.

    Args:
        record: the run's record.
        cell: the published number.
        any_protocol: accept every protocol that comes with seqbench, not only the paper's, and a
            score on test where the paper's is on another split.
    """
    row = cell.row
    if record.score and record.score.metric != row.metric:
        yield f"{record.score.metric} instead of {row.metric}"
    if record.score and record.score.split not in ON_TEST:
        yield f"on {record.score.split} instead of {row.split}"
    elif row.split not in ON_TEST and not any_protocol:
        yield f"on test instead of {row.split}"
    if row.length is not None and record.length != row.length:
        here = "no length" if record.length is None else f"T={record.length}"
        yield f"{here} instead of T={row.length}"
    if record.budget != row.budget:
        here = f"budget {record.budget}" if record.budget else "custom budget"
        yield f"{here} instead of {row.budget}"
    else:
        yield from amount_differences(record.config, row.protocol).values()
    if record.protocol not in (protocols() if any_protocol else {row.protocol}):
        here = f"protocol {record.protocol}" if record.protocol else "custom protocol"
        theirs = row.protocol if row.protocol in protocols() else "that of the paper"
        yield f"{here} instead of {theirs}"
    small, large = sorted((record.parameters or 0, row.size or 0))
    if small and large / max(1, small) > SIZE_RATIO:
        yield f"{record.parameters:,} parameters instead of about {row.size:,}"


def comparability(record: Record, cell: PublishedCell) -> str:
    """Return a run's comparability to a published number in words."""
    reason = ", ".join(differences(record, cell))
    return f"not like for like: here {reason}" if reason else LIKE


def cell_differences(
    cell: Cell, found: PublishedCell, *, any_protocol: bool = False
) -> Iterator[str]:
    """Yield the `differences` of a cell, whose runs differ in the seed only."""
    # Prefer a run with a score: one that failed early lacks its score and parameter count.
    run = min(cell.records, key=lambda record: record.score is None)
    typical = replace(run, parameters=cell.parameters)
    return differences(typical, found, any_protocol=any_protocol)


def verdict(cell: Cell | None, published: PublishedCell | None) -> Verdict:
    """Return the verdict of some runs on a published number.

    Args:
        cell: the runs, which differ in the seed only; `None` if there are none.
        published: the published number; `None` if the paper reports none.
    """
    if cell is None:
        return Verdict("not measured")
    lost = f"of {len(cell.records)} runs {', '.join(cell.lost)}"
    sample = cell.statistics
    if sample is None:
        return Verdict("not measured", lost)
    if published is None:
        return Verdict("no published value")
    # The mean of the remaining runs is biased.
    reasons = [
        *cell_differences(cell, published, any_protocol=True),
        *([lost] if cell.lost else []),
    ]
    if reasons:
        return Verdict("not comparable", ", ".join(reasons))
    protocol = ", ".join(cell_differences(cell, published))
    off = sample.mean - published.value
    within = abs(off) <= published.rounding
    better = "better" if (off < 0) == (published.row.direction == "min") else "worse"
    if sample.n < FEWEST_SEEDS:
        return Verdict(f"n={sample.n}: looks {'alike' if within else better}", protocol)
    values = [value for _, value in cell.scores]
    # The value nearest to the mean that rounds to the printed one.
    nearest = published.value + math.copysign(published.rounding, off)
    bounds = [] if cell.baseline is None else [cell.baseline]
    scale = scale_of(published.row.metric, [*values, published.value, nearest, *bounds])
    interval = prediction_interval([scale.to(value) for value in values])
    if interval is None:
        return Verdict("cannot tell", "the scores are too large to compare")
    middle, half = interval
    if not within and abs(middle - scale.to(nearest)) > half:
        return Verdict(better, protocol)
    smallest = SMALLEST_THAT_MATTERS * (abs(published.value) if scale is IDENTITY else 1)
    ways = [abs(scale.to(published.value) - scale.to(bound)) for bound in bounds]
    matters = max([smallest, *(SHARE_THAT_MATTERS * way for way in ways)])
    ends = (scale.back(scale.to(published.value) + side * matters) for side in (-1, 1))
    low, high = (number(end, published.row.metric) for end in ends)
    reason = "; ".join(filter(None, [f"scores of {low} to {high} count as alike", protocol]))
    return Verdict("cannot tell" if half > matters else "reproduced", reason)


def explanation(said: Iterable[str]) -> list[str]:
    """Return a note that explains the words of these verdicts, or no note if none needs it."""
    return [EXPLANATION] if EXPLAINED.intersection(said) else []
