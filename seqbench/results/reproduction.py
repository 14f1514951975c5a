"""Compare a paper's published numbers with measured ones, with a verdict on each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seqbench.errors import ConfigError
from seqbench.results.aggregate import Cell, aggregate
from seqbench.results.papers import PublishedCell, load_paper, read_paper
from seqbench.results.standing import standings
from seqbench.results.statistics import FEWEST_SEEDS
from seqbench.results.tables import (
    ARROWS,
    SHOWN,
    SUPERSCRIPTS,
    TIED,
    TIED_NOTE,
    Entry,
    Header,
    Row,
    Table,
)
from seqbench.results.verdict import explanation, verdict
from seqbench.results.where import BETWEEN_TERMS, TERM, holds
from seqbench.runs.record import Record
from seqbench.wording import is_accuracy, mean_and_spread, metric_name, number, plain

COLUMNS = ("published", "measured", "verdict", "difference", "solved", "parameters", "seconds")


@dataclass(frozen=True)
class Target:
    """A model to measure on the task of a row of a paper's table.

    Attributes:
        model: seqbench's name of the model.
        row: a cell of that row: `published`, or the first one if that is `None`.
        published: the paper's number; `None` for a model that the paper does not report.
    """

    model: str
    row: PublishedCell
    published: PublishedCell | None

    @property
    def label(self) -> str:
        """Return task and model, as in `adding tcn`."""
        return f"{self.row.task} {self.model}"


def targets(paper: str, models: Sequence[str], only: str | None = None) -> list[Target]:
    """Return the parts of a paper's table that seqbench can measure, in the table's order.

    Args:
        paper: name of the paper.
        models: names of the available models.
        only: a filter on task and model, as in `task=adding, model=tcn|gru`.

    Raises:
        ConfigError: if there is no such paper, `only` cannot be parsed, or no target is left.
    """
    rows: dict[str, list[PublishedCell]] = {}
    for cell in load_paper(paper):
        if cell.run:
            rows.setdefault(cell.task, []).append(cell)
    found = []
    for cells in rows.values():
        there = {cell.model: cell for cell in cells}
        for model in [*there, *read_paper(paper)["beside"]]:
            if model in models:
                found.append(Target(model, there.get(model, cells[0]), there.get(model)))
    return [target for target in found if _matches(target, only)] or _nothing(found, only)


def _matches(target: Target, only: str | None) -> bool:
    values = {"task": target.row.task, "model": target.model}
    for term in BETWEEN_TERMS.split(only) if only else []:
        match = TERM.fullmatch(term)
        if match is None or match[1] not in values or match[2] not in ("=", "==", "!="):
            raise ConfigError(f"--only wants 'task=adding, model=tcn|gru', not '{term}'")
        if not holds(values[match[1]], match[2], match[3]):
            return False
    return True


def _nothing(found: Sequence[Target], only: str | None) -> list[Target]:
    names = ", ".join(dict.fromkeys(target.row.task for target in found))
    models = ", ".join(dict.fromkeys(target.model for target in found))
    raise ConfigError(f"nothing matches --only '{only}': tasks are {names}; models {models}")


def build_reproduction(
    paper: str,
    found: Mapping[Target, Sequence[Record]],
    seeds: int,
    source: str,
) -> Table:
    """Build a table of published and measured numbers, a row for each target.

    Args:
        paper: name of the paper.
        found: target -> its records; empty if it was not measured.
        seeds: number of seeds requested.
        source: hash of the seqbench sources in use; results of other sources are marked.
    """
    # A target has one cell, or several if its runs differ in more than the seed (such as the data).
    rows: list[tuple[Target, Cell | None]] = []
    for target, records in found.items():
        rows += [(target, cell) for cell in aggregate(records)] or [(target, None)]
    cells = [cell for _, cell in rows if cell]
    standing = dict(zip(map(id, cells), standings(cells), strict=True))
    reasons: dict[str, None] = {}
    said: set[str] = set()
    made = []
    for target, cell in rows:
        judged = verdict(cell, target.published)
        said.add(judged.words)
        if judged.reason:
            reasons.setdefault(judged.reason)
        place = list(reasons).index(judged.reason) + 1 if judged.reason else ""
        entries: dict[str, Entry | None] = dict.fromkeys(COLUMNS)
        if target.published:
            entries["published"] = Entry(target.published.printed)
        entries["verdict"] = Entry(judged.words, marks=str(place).translate(SUPERSCRIPTS))
        if cell:
            stands = standing[id(cell)]
            entries["measured"] = _measured(cell, seeds, stands == "best", stands == "tied", source)
            for name in ("solved", "parameters", "seconds"):
                entries[name] = Entry(SHOWN[name].text(cell))
            if cell.statistics and target.published:
                entries["difference"] = Entry(_difference(cell, target.published))
        label = plain(target.label) + (f" ({plain(cell.variant)})" if cell and cell.variant else "")
        made.append(Row(label, tuple(entries[name] for name in COLUMNS)))
    marks = [f"{i}".translate(SUPERSCRIPTS) for i in range(1, len(reasons) + 1)]
    headers = [Header(SHOWN[n].header if n in SHOWN else n, "") for n in COLUMNS]
    return Table(
        title=f"{plain(paper)}: published and measured",
        columns=tuple(headers),
        rows=tuple(made),
        notes=(
            *_notes(paper, [t for t, _ in rows]),
            f"measured: mean ± half of its 95% confidence interval (Student's t) over {seeds} seeds"
            f" or n; fewer than {FEWEST_SEEDS} give no interval, and a hint at most",
            *explanation(said),
            *([TIED_NOTE] if "tied" in standing.values() else []),
            *(["† run with older code"] if any(map(_older(source), cells)) else []),
            *(f"{mark} {plain(reason)}" for mark, reason in zip(marks, reasons, strict=True)),
        ),
        stub="task, model",
    )


def _measured(cell: Cell, seeds: int, best: bool, tied: bool, source: str) -> Entry:
    sample, metric = cell.statistics, cell.column.metric
    n = sample.n if sample else 0
    interval = sample.ci95 if sample and n >= FEWEST_SEEDS else None
    value, spread = mean_and_spread(sample.mean if sample else None, interval, metric)
    lost = ((cell.diverged, "diverged"), (cell.failed, "failed"))
    return Entry(
        value=value,
        spread=spread,
        n=n,
        best=best,
        flags=(
            *([f"n={n}"] if n < FEWEST_SEEDS or n != seeds else []),
            *(f"{count} {how}" for count, how in lost if count),
        ),
        marks=(TIED if tied else "") + ("†" if _older(source)(cell) else ""),
    )


def _older(source: str) -> Callable[[Cell], bool]:
    return lambda cell: any(record.source != source for record in cell.records)


def _difference(cell: Cell, published: PublishedCell) -> str:
    if cell.statistics is None or cell.column.metric != published.metric:
        return "-"
    off = cell.statistics.mean - published.value
    return f"{'+' if off > 0 else ''}{number(off, published.metric)}"


def _notes(paper: str, shown: Sequence[Target]) -> list[str]:
    """Return notes on the published numbers, their metrics, and tasks that seqbench lacks."""
    facts: dict[str, Any] = read_paper(paper)
    rows = {target.row.task: target.row for target in shown}
    metrics = [
        f"{task}: {metric_name(row.metric)} {ARROWS[row.direction]}"
        + (f" at T={row.length}" if row.length else "")
        for task, row in rows.items()
    ]
    missing = dict.fromkeys(cell.task for cell in load_paper(paper) if not cell.run)
    points = any(is_accuracy(row.metric) for row in rows.values())
    notes = [
        f"published: {facts['source']}; {facts['reduction']}; what is doubtful about each number"
        f" stands in configs/paper/{paper}.yaml and in `seqbench show RUN`",
        "; ".join(metrics),
        "difference: measured less published" + (", of accuracies in points" if points else ""),
    ]
    return notes + ([f"in the paper, not run here: {', '.join(missing)}"] if missing else [])
