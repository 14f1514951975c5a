"""A comparison of models as a table that any format can show.

    records -> aggregate -> cells -> build_table -> Table -> markdown, latex, html, the terminal
                                  -> export.py: csv and json

A `Table` knows no markup: numbers are rounded, units chosen, notes numbered. Another format is one
more file with a `render(table)`.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from seqbench.results.aggregate import Cell, Column
from seqbench.results.papers import load_paper, published, unlike
from seqbench.wording import metric_name, number, plain, spread

ARROWS = {"min": "↓", "max": "↑"}
# Below this many seeds an interval says nothing, and the cell says how many there are.
FEWEST_SEEDS = 3
# Notes by number, in the order of their first mention.
SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
LISTED_RUNS = 5


@dataclass(frozen=True)
class Header:
    """What stands above a column: `adding T=200` over `MSE ↓ (quick)`.

    Attributes:
        task: the task with its size; `published` above a paper's numbers.
        measure: metric, direction and budget; or the paper.
        beside: the column belongs to the one before it.
    """

    task: str
    measure: str
    beside: bool = False

    def __str__(self) -> str:
        return f"{self.task} · {self.measure}"


@dataclass(frozen=True)
class Entry:
    """One place of a table in which something was measured or published.

    Attributes:
        value: the mean, rounded; `-` if no run came to a score.
        spread: half width of its 95% interval, in the same unit; empty below three seeds.
        n: runs behind the mean.
        best: no other model has a better mean in this column.
        flags: what a reader must know of these runs: `n=1`, `1 diverged`.
        marks: point to the notes below the table.
    """

    value: str
    spread: str = ""
    n: int = 0
    best: bool = False
    flags: tuple[str, ...] = ()
    marks: str = ""

    @property
    def number(self) -> str:
        """The mean with its interval."""
        return f"{self.value} ± {self.spread}" if self.spread else self.value


@dataclass(frozen=True)
class Row:
    """A model, or one of the bounds that stand below all models.

    Attributes:
        label: what it is.
        entries: one for each column; `None` where there is nothing.
        bound: whether it is a bound.
    """

    label: str
    entries: tuple[Entry | None, ...]
    bound: bool = False


@dataclass(frozen=True)
class Table:
    """A comparison of models, ready to be rendered."""

    title: str
    columns: tuple[Header, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def build_table(cells: Sequence[Cell], source: str, paper: str | None = None) -> Table:
    """Models down, tasks across, what each task is bounded by at the bottom.

    Args:
        cells: as `aggregate` gives them.
        source: hash of the sources in use; results of others are marked.
        paper: a paper whose numbers stand beside the measured ones.

    Raises:
        ConfigError: there is no such paper.
    """
    columns = _by_column(cells)
    models = sorted({(cell.model, cell.variant) for cell in cells})
    in_paper = {cell.task for cell in load_paper(paper)} if paper else set()
    usual_n = _usual_n(cells)
    protocols = {column.protocol for column in columns}
    remarks = _Remarks()

    # Built column by column, then turned.
    headers: list[Header] = []
    entries: list[list[Entry | None]] = []
    for column, members in columns.items():
        header = _header(column, with_protocol=len(protocols) > 1)
        placed = {(cell.model, cell.variant): cell for cell in members}
        best = _best(members)
        headers.append(header)
        entries.append(
            [
                _entry(placed[model], best, usual_n, source) if model in placed else None
                for model in models
            ]
            + [
                _bound((cell.baseline for cell in members), column.metric),
                _bound((cell.optimum for cell in members), column.metric),
            ]
        )
        if paper and column.task in in_paper:
            headers.append(Header("published", plain(paper), beside=True))
            entries.append(
                [
                    _published(placed[model], paper, header, remarks) if model in placed else None
                    for model in models
                ]
                + [None, None]
            )
    labels = [f"{plain(m)} ({plain(variant)})" if variant else plain(m) for m, variant in models]
    labels += ["without memory", "best possible"]
    rows = [
        Row(label, tuple(column[i] for column in entries), bound=i >= len(models))
        for i, label in enumerate(labels)
    ]
    splits = {column.split for column in columns} - {None}
    return Table(
        title=("Test scores" if splits <= {"test"} else "Scores")
        + (f" beside {plain(paper)}" if paper else ""),
        columns=tuple(headers),
        rows=tuple(row for row in rows if not row.bound or any(row.entries)),
        notes=(*_explanations(cells, usual_n, protocols, source), *remarks.lines()),
    )


class _Remarks:
    """Remarks on published numbers: equal ones get one mark, with all that they are about."""

    def __init__(self) -> None:
        self.about: dict[str, dict[str, list[str]]] = {}

    def mark(self, text: str, task: str, model: str) -> str:
        models = self.about.setdefault(text, {}).setdefault(task, [])
        if model not in models:
            models.append(model)
        return str(list(self.about).index(text) + 1).translate(SUPERSCRIPTS)

    def lines(self) -> list[str]:
        lines = []
        for i, (text, tasks) in enumerate(self.about.items(), start=1):
            about = "; ".join(f"{task}: {', '.join(models)}" for task, models in tasks.items())
            lines.append(f"{str(i).translate(SUPERSCRIPTS)} {text} ({about})")
        return lines


def _by_column(cells: Sequence[Cell]) -> dict[Column, list[Cell]]:
    columns: dict[Column, list[Cell]] = {}
    for cell in cells:
        columns.setdefault(cell.column, []).append(cell)
    return columns


def _entry(cell: Cell, best: float | None, usual_n: int | None, source: str) -> Entry:
    sample, metric = cell.statistics, cell.column.metric
    flags = []
    if sample and sample.n != usual_n:
        flags.append(f"n={sample.n}")
    for count, ending in ((cell.diverged, "diverged"), (cell.failed, "failed")):
        if count:
            flags.append(f"{count} {ending}")
    if cell.solved and 0 < cell.solved[0] < cell.solved[1]:
        # Where some seeds solve a task and some stay at chance, a mean alone misleads.
        flags.append(f"{cell.solved[0]} of {cell.solved[1]} solved")
    if len({record.seed for record in cell.records}) < len(cell.records):
        flags.append("a seed counts twice")
    value = number(sample.mean if sample else None, metric)
    interval = sample.ci95 if sample and sample.n >= FEWEST_SEEDS else None
    return Entry(
        value=value,
        spread="" if interval is None else spread(interval, value, metric),
        n=sample.n if sample else 0,
        best=sample is not None and sample.mean == best and not cell.diverged,
        flags=tuple(flags),
        marks="†" if any(record.source != source for record in cell.records) else "",
    )


def _published(cell: Cell, paper: str, header: Header, remarks: _Remarks) -> Entry | None:
    found = published(paper, cell.column.task, cell.model)
    if found is None:
        return None
    reason = unlike(cell, found)
    marks = remarks.mark(reason, header.task, plain(cell.model)) if reason else ""
    return Entry(value=found.printed, marks=marks)


def _best(cells: Sequence[Cell]) -> float | None:
    # A mean over those that survived divergence does not compete, nor does a model on its own.
    means = [cell.statistics.mean for cell in cells if cell.statistics and not cell.diverged]
    scored = sum(cell.statistics is not None for cell in cells)
    if scored < 2 or not means:
        return None
    return min(means) if cells[0].column.direction == "min" else max(means)


def _bound(values: Iterable[float | None], metric: str | None) -> Entry | None:
    known = [value for value in values if value is not None]
    return Entry(value=number(known[0], metric)) if known else None


def _header(column: Column, with_protocol: bool) -> Header:
    task = plain(column.task)
    if column.length is not None:
        task += f" T={column.length}"
    if column.variant:
        task += f" [{plain(column.variant)}]"
    measure = metric_name(column.metric) if column.metric else "no score"
    if column.split and column.split != "test":
        measure = f"{plain(column.split)} {measure}"
    if column.direction:
        measure += f" {ARROWS[column.direction]}"
    choices = [column.budget, column.protocol if with_protocol else None]
    if any(choices):
        measure += f" ({', '.join(plain(choice) for choice in choices if choice)})"
    return Header(task, measure)


def _usual_n(cells: Iterable[Cell]) -> int | None:
    """The commonest number of seeds, which cells need not repeat; `None` if that is too few."""
    counts = Counter(cell.statistics.n for cell in cells if cell.statistics)
    usual = max(counts, key=lambda n: (counts[n], n), default=0)
    return usual if usual >= FEWEST_SEEDS else None


def _explanations(
    cells: Sequence[Cell], usual_n: int | None, protocols: set[str | None], source: str
) -> list[str]:
    lines = []
    sizes = [cell.statistics.n for cell in cells if cell.statistics]
    if max(sizes, default=0) >= FEWEST_SEEDS:
        seeds = f"; n={usual_n} seeds where no n is given" if usual_n else ""
        lines.append(f"mean ± half of its 95% confidence interval (Student's t){seeds}")
    if min(sizes, default=FEWEST_SEEDS) < FEWEST_SEEDS:
        lines.append(f"fewer than {FEWEST_SEEDS} seeds give no interval")
    if len(protocols) == 1 and (protocol := next(iter(protocols))):
        lines.append(f"protocol: {plain(protocol)}")
    older = [r.run_id for cell in cells for r in cell.records if r.source != source]
    if older:
        listed = ", ".join(plain(run_id)[:8] for run_id in older[:LISTED_RUNS])
        listed += ", ..." if len(older) > LISTED_RUNS else ""
        lines.append(f"† run with older code: {listed}")
    return lines
