"""Build a comparison of models as a table."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

from seqbench.config.choices import choices_of
from seqbench.errors import ConfigError
from seqbench.results.cells import Cell, Column, Standing, standings
from seqbench.results.papers import cell_differences, load_paper, published
from seqbench.results.recipe import STARTED, amount_differences
from seqbench.results.statistics import FEWEST_SEEDS
from seqbench.results.tables import notes
from seqbench.results.tables.layout import COLS, ROWS, arrange
from seqbench.results.tables.notes import OLDER, TIED
from seqbench.results.tables.paired import against_entry, against_note
from seqbench.results.tables.table import Entry, Header, Row, Table, superscript
from seqbench.results.variants import START
from seqbench.runs.record import BEST_POSSIBLE, WITHOUT_MEMORY
from seqbench.wording import count, duration, mean_and_spread, number, plain, suggestion


def build_table(
    cells: Sequence[Cell],
    paper: str | None = None,
    *,
    rows: Sequence[str] = ROWS,
    cols: Sequence[str] = COLS,
    show: Sequence[str] = (),
    against: str | None = None,
) -> Table:
    """Build a table: by default a row per model, a column per task, and bounds at the bottom.

    Cells with runs of older sources are marked; if all runs are so, a note says it instead.

    Args:
        cells: as returned by `aggregate`.
        paper: name of a paper whose published values get extra columns; models of the paper that
            seqbench lacks get rows.
        rows: config keys of the rows; see `arrange`.
        cols: config keys of the columns.
        show: extra columns beside each mean; names of `SHOWN`.
        against: name of a model; an extra column has the paired differences to it.

    Raises:
        ConfigError: if there is no such paper, key or model, or `paper` is given with other keys
            than the default ones.
    """
    if against is not None and against not in (models := {cell.model for cell in cells}):
        raise ConfigError(f"no run of a model '{against}'{suggestion(against, models)}")
    if paper and (tuple(rows), tuple(cols)) != (ROWS, COLS):
        raise ConfigError("--paper takes rows and columns as they are by default")
    grid = arrange(cells, rows, cols)
    places = range(len(grid.rows))
    standing = dict(zip(grid.cells, standings(list(grid.cells.values())), strict=True))
    paper_rows = list(load_paper(paper)) if paper else []
    in_paper = {row.task for row in paper_rows}
    usual_n = _usual_n(cells)
    here = {cell.column.protocol for cell in cells}
    any_protocol = len(here) == 1 and None not in here  # a note names it
    runs = [record for cell in cells for record in cell.records]
    older = [record.run_id for record in runs if not record.is_current]
    marked = frozenset(older) if len(older) < len(runs) else frozenset()
    bounds = _bounds_of(cells)
    remarks = _Remarks()
    columns: list[_Column] = []
    for j, texts in enumerate(grid.columns):
        members = [grid.cells.get((i, j)) for i in places]
        name = plain(next(cell.column.task for cell in members if cell))
        header = Header(*texts, name="" if grid.tasks_down else name)
        means: list[Entry | None] = [
            None
            if cell is None
            else _entry(cell, standing[i, j], usual_n, marked, f"{row} {texts[0]}", remarks)
            for i, (row, cell) in enumerate(zip(grid.rows, members, strict=True))
        ]
        below = {} if grid.tasks_down else {name: _bound(members, name) for name in bounds}
        columns += [_Column(header, means, bounds=below), *_beside(header, members, show, against)]
        if paper and any(cell and cell.column.task in in_paper for cell in members):
            columns.append(_beside_paper(header, members, paper, any_protocol, remarks))
    for name in bounds if grid.tasks_down else ():
        of_rows = [[c for (i, _), c in grid.cells.items() if i == row] for row in places]
        columns.append(_Column(Header(plain(name), ""), [_bound(cs, name) for cs in of_rows]))
    splits = {cell.column.split for cell in cells} - {None}
    return Table(
        title=("Test scores" if splits <= {"test"} else "Scores")
        + (f" beside {plain(paper)}" if paper else ""),
        columns=tuple(column.header for column in columns),
        rows=tuple(_rows(grid.rows, columns, bounds)),
        notes=(
            *notes.explanations(cells, usual_n),
            *notes.of_choices(cells, paper_rows),
            *([] if "parameters" in (*rows, *cols, *show) else notes.of_sizes(cells)),
            *notes.of_older_code(len(older), len(runs)),
            *([notes.TIED_NOTE] if "tied" in standing.values() else []),
            *(SHOWN[name].note for name in show if SHOWN[name].note),
            *([against_note(against)] if against is not None else []),
            *remarks.lines(),
        ),
        stub=grid.stub,
    )


@dataclass(frozen=True)
class _Column:
    """A column: entries of the rows, numbers of models without a row, and bounds, by name."""

    header: Header
    entries: list[Entry | None]
    of_others: Mapping[str, Entry] = field(default_factory=dict)
    bounds: Mapping[str, Entry | None] = field(default_factory=dict)


def _beside(
    header: Header, cells: Sequence[Cell | None], show: Sequence[str], against: str | None
) -> list[_Column]:
    """Return the extra columns beside a mean, but for published numbers."""
    makers: list[tuple[str, Callable[[Cell], Entry | None]]] = [
        (SHOWN[name].header, SHOWN[name].entry) for name in show
    ]
    there = [cell for cell in cells if cell]
    pair = partial(against_entry, rivals=there, name=against)
    if against is not None and any(map(pair, there)):
        makers.append((f"against {plain(against)}", pair))
    return [
        _Column(
            Header(title, header.task, True, header.name),
            [None if cell is None else make(cell) for cell in cells],
        )
        for title, make in makers
    ]


def _beside_paper(
    header: Header,
    cells: Sequence[Cell | None],
    paper: str,
    any_protocol: bool,
    remarks: "_Remarks",
) -> _Column:
    """Return the column of a paper's numbers, those of bounds and other models as well."""
    there = [cell for cell in cells if cell]
    others = _of_others(paper, there[0])
    of_bounds = {model: plain(model).replace("_", " ") for model in others}
    bounds = {name for cell in there for name in cell.bounds}
    return _Column(
        Header("published", plain(paper), True, header.name),
        [
            None if cell is None else _published(cell, paper, any_protocol, remarks)
            for cell in cells
        ],
        {model: entry for model, entry in others.items() if of_bounds[model] not in bounds},
        {name: others[model] for model, name in of_bounds.items() if name in bounds},
    )


def _rows(
    labels: Sequence[str], columns: Sequence[_Column], bounds: Sequence[str]
) -> Iterator[Row]:
    """Yield the rows of the cells, of models that seqbench lacks, and of the known bounds."""
    for i, label in enumerate(labels):
        yield Row(label, tuple(column.entries[i] for column in columns))
    for model in dict.fromkeys(model for column in columns for model in column.of_others):
        yield Row(model, tuple(column.of_others.get(model) for column in columns))
    for name in bounds:
        entries = tuple(column.bounds.get(name) for column in columns)
        if any(entries):
            yield Row(plain(name), entries, bound=True)


class _Shown(NamedTuple):
    header: str
    text: Callable[[Cell], str]
    note: str = ""

    def entry(self, cell: Cell) -> Entry:
        return Entry(self.text(cell))


def _median(cell: Cell) -> str:
    return number(cell.statistics.median if cell.statistics else None, cell.column.metric)


def _interval(cell: Cell) -> str:
    sample, metric = cell.statistics, cell.column.metric
    if sample is None or sample.low is None or sample.n < FEWEST_SEEDS:
        return "-"
    return f"{number(sample.low, metric)} to {number(sample.high, metric)}"


def _solved(cell: Cell) -> str:
    return f"{cell.solved[0]}/{cell.solved[1]}" if cell.solved else "-"


SHOWN = {
    "median": _Shown("median", _median),
    "interval": _Shown("95% interval", _interval),
    "n": _Shown("n", lambda cell: str(len(cell.scores))),
    "solved": _Shown("solved", _solved),
    "parameters": _Shown("parameters", lambda cell: count(cell.parameters)),
    "seconds": _Shown("training time", lambda cell: duration(cell.seconds)),
    "compute": _Shown(
        "FLOP",
        lambda cell: number(cell.compute, digits=2),
        "FLOP: 6 for each parameter and time step read in training, an estimate",
    ),
}


class _Remarks:
    """Numbered remarks on entries; equal remarks share a number."""

    def __init__(self) -> None:
        self.numbers: dict[str, str] = {}

    def mark(self, text: str) -> str:
        """Return the number of a remark, as a superscript."""
        return self.numbers.setdefault(text, superscript(len(self.numbers) + 1))

    def lines(self) -> list[str]:
        """Return the remarks as notes."""
        return [f"{number} {text}" for text, number in self.numbers.items()]


def measured(cell: Cell, standing: Standing | None, usual_n: int | None) -> Entry:
    """Return the mean of a cell with its interval, marked if tied and flagged where runs lack.

    Args:
        cell: the runs.
        standing: as returned by `standings`.
        usual_n: number of seeds that needs no flag; `None` to flag every number.
    """
    sample, metric = cell.statistics, cell.column.metric
    n = sample.n if sample else 0
    mean, spread = sample.mean if sample else None, None
    if sample and sample.high is not None and n >= FEWEST_SEEDS:
        spread = sample.high / sample.mean if cell.log else sample.high - sample.mean
    if cell.log:
        value, text = number(mean, metric), number(spread, digits=2) if spread else ""
    else:
        value, text = mean_and_spread(mean, spread, metric)
    return Entry(
        value=value,
        spread=text,
        n=n,
        best=standing == "best",
        flags=(*([f"n={n}"] if n != usual_n else []), *cell.lost),
        marks=TIED if standing == "tied" else "",
        log=cell.log,
    )


def _entry(
    cell: Cell,
    standing: Standing | None,
    usual_n: int | None,
    older: frozenset[str],
    labels: str,
    remarks: _Remarks,
) -> Entry:
    entry = measured(cell, standing, usual_n if cell.scores else 0)
    flags = list(entry.flags)
    if cell.solved and 0 < cell.solved[0] < cell.solved[1]:
        # If some seeds solve the task and others stay at chance, the mean alone is misleading.
        flags.append(f"{cell.solved[0]} of {cell.solved[1]} solved")
    if len({record.seed for record in cell.records}) < len(cell.records):
        flags.append("a seed counts twice")
    mark = OLDER if any(record.run_id in older for record in cell.records) else ""
    texts = [
        text
        for text in amount_differences(cell.records[0].config).values()
        if not _is_in(labels, text)
    ]
    if better := _better_baseline(cell):
        texts.append(f"no better than {better}")
    marks = entry.marks + mark + ",".join(map(remarks.mark, texts))
    return replace(entry, flags=tuple(flags), marks=marks)


def _is_in(labels: str, difference: str) -> bool:
    """Return True if the labels of a row and a column say how an amount differs, as `epochs=1`."""
    if difference == STARTED:
        return f"{START}=" in labels
    here = re.escape(difference.partition(" instead of ")[0])
    return re.search(rf"\b{here}(?![\w.])", labels) is not None


def _better_baseline(cell: Cell) -> str | None:
    """Return the predictor without memory or the best naive one, if the mean does not beat it.

    A mean that is printed with the same digits does not beat it.
    """
    first, sample = cell.records[0], cell.statistics
    if first.baseline is None or sample is None:
        return None
    metric, sign = cell.column.metric, -1 if cell.column.direction == "max" else 1
    beats = sign * sample.mean < sign * first.baseline
    if beats and number(sample.mean, metric) != number(first.baseline, metric):
        return None
    name = first.baseline_name
    return "a predictor without memory" if name == WITHOUT_MEMORY else f"the {plain(name)}"


def _published(cell: Cell, paper: str, any_protocol: bool, remarks: _Remarks) -> Entry | None:
    found = published(paper, cell.records[0])
    if found is None:
        return None
    reasons = cell_differences(cell, found, any_protocol=any_protocol)
    # The measured number beside it says how amounts differ.
    amounts = amount_differences(cell.records[0].config).values()
    marks = [remarks.mark(f"here {reason}") for reason in reasons if reason not in amounts]
    return Entry(found.printed, marks=",".join(marks))


def _of_others(paper: str, cell: Cell) -> dict[str, Entry]:
    """Return model -> published number, of the models that seqbench lacks, for a cell's task."""
    record, known = cell.records[0], choices_of("model")
    return {
        plain(model): Entry(found.printed)
        for row, cells in load_paper(paper).items()
        if row.task == record.task and row.is_of(record.config)
        for model, found in cells.items()
        if model not in known
    }


def _bounds_of(cells: Iterable[Cell]) -> list[str]:
    """Return the names of all bounds: without memory first, the best possible score last."""
    names = [name for cell in cells for name in cell.bounds if name != BEST_POSSIBLE]
    return list(dict.fromkeys([WITHOUT_MEMORY, *names, BEST_POSSIBLE]))


def _bound(cells: Iterable[Cell | None], name: str) -> Entry | None:
    """Return the bound of some cells; `None` if it is unknown or differs between them."""
    known: dict[Column, str] = {}
    for cell in cells:
        if cell and name in cell.bounds:
            known.setdefault(cell.column, number(cell.bounds[name], cell.column.metric))
    texts = set(known.values())
    return Entry(texts.pop()) if len(texts) == 1 else None


def _usual_n(cells: Iterable[Cell]) -> int | None:
    """Return the most common number of seeds; `None` if it is below `FEWEST_SEEDS`."""
    counts = Counter(cell.statistics.n for cell in cells if cell.statistics)
    usual = max(counts, key=lambda n: (counts[n], n), default=0)
    return usual if usual >= FEWEST_SEEDS else None
