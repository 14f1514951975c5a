"""Tables of results, for people and for programs.

    records -> aggregate -> cells -> build_table -> Table -> markdown, the terminal (cli/table.py)
                                  -> long_form   -> csv, json

A `Table` is ready to be shown but knows nothing of any markup: numbers are rounded, units chosen,
notes numbered. LaTeX or HTML would be one more function from it to text.
"""

import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from seqbench.results.aggregate import Cell, Column
from seqbench.results.papers import PublishedCell, like_for_like, load_paper, published

METRICS = {"mse": "MSE", "cross_entropy": "cross-entropy (nats)", "nll": "NLL (nats)"}
ARROWS = {"min": "↓", "max": "↑", None: ""}
# Below this many seeds an interval says nothing, and the cell says how many there are.
FEWEST_SEEDS = 3
MISSING = "–"
SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Header:
    """Two lines above a column: `adding T=200` and `MSE ↓ (quick)`."""

    task: str
    measure: str

    def __str__(self) -> str:
        return f"{self.task} · {self.measure}"


@dataclass(frozen=True)
class Entry:
    """One place of a table.

    Attributes:
        value: the mean, rounded; empty where nothing was measured.
        spread: half width of its 95% interval, in the same unit; empty below three seeds.
        n: runs behind the mean.
        best: no other model has a better mean in this column.
        flags: what a reader must know of these runs: `n=1`, `1 diverged`.
        marks: point to the notes below the table.
    """

    value: str = ""
    spread: str = ""
    n: int = 0
    best: bool = False
    flags: tuple[str, ...] = ()
    marks: str = ""

    @property
    def number(self) -> str:
        """The mean with its interval."""
        return f"{self.value} ± {self.spread}" if self.spread else self.value or MISSING


@dataclass(frozen=True)
class Row:
    """A model, or one of the bounds below the models."""

    label: str
    entries: tuple[Entry, ...]
    bound: bool = False


@dataclass(frozen=True)
class Table:
    """A comparison of models, ready to be rendered."""

    title: str
    columns: tuple[Header, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def build_table(cells: Sequence[Cell], source: str, paper: str | None = None) -> Table:
    """Models down, tasks across, the bounds of each task at the bottom.

    Args:
        cells: as `aggregate` orders them.
        source: hash of the sources in use; results of other sources are marked.
        paper: a paper whose numbers stand beside the measured ones.

    Raises:
        ConfigError: there is no such paper.
    """
    notes = _Notes()
    columns = list(dict.fromkeys(cell.column for cell in cells))
    models = list(
        dict.fromkeys((cell.model, cell.variant) for cell in sorted(cells, key=_by_model))
    )
    placed = {(cell.column, cell.model, cell.variant): cell for cell in cells}
    usual_n = _usual_n(cells)
    protocols = {column.protocol for column in columns}
    in_paper = {cell.task for cell in load_paper(paper)} if paper else set()

    headers: list[Header] = []
    entries: dict[tuple[str, str], list[Entry]] = {model: [] for model in models}
    baselines: list[Entry] = []
    optima: list[Entry] = []
    for column in columns:
        here = [cell for cell in cells if cell.column == column]
        headers.append(_header(column, with_protocol=len(protocols) > 1))
        best = _best(here)
        for model in models:
            cell = placed.get((column, *model))
            entry = _entry(cell, best, usual_n, source) if cell else Entry()
            entries[model].append(entry)
        baselines.append(_bound((cell.baseline for cell in here), column.metric))
        optima.append(_bound((cell.optimum for cell in here), column.metric))
        if paper and column.task in in_paper:
            headers.append(Header(headers[-1].task, f"{plain(paper)}"))
            for model in models:
                entries[model].append(
                    _published_entry(paper, column, placed.get((column, *model)), model[0], notes)
                )
            baselines.append(Entry(value=" "))
            optima.append(Entry(value=" "))
    rows = [Row(_label(*model), tuple(entries[model])) for model in models]
    if any(entry.value.strip() for entry in baselines):
        rows.append(Row("without memory", tuple(baselines), bound=True))
    if any(entry.value.strip() for entry in optima):
        rows.append(Row("best possible", tuple(optima), bound=True))
    return Table(
        title=f"Scores beside {plain(paper)}" if paper else "Scores",
        columns=tuple(headers),
        rows=tuple(rows),
        notes=(*_explanations(cells, usual_n, protocols, source), *notes.lines()),
    )


class _Notes:
    """Remarks below a table: equal ones get one number, with all that they are about."""

    def __init__(self) -> None:
        self.subjects: dict[tuple[str, str], list[str]] = {}

    def mark(self, place: str, subject: str, text: str) -> str:
        subjects = self.subjects.setdefault((place, text), [])
        if subject not in subjects:
            subjects.append(subject)
        return str(list(self.subjects).index((place, text)) + 1).translate(SUPERSCRIPTS)

    def lines(self) -> list[str]:
        return [
            f"{str(number).translate(SUPERSCRIPTS)} {place} ({', '.join(subjects)}): {text}"
            for number, ((place, text), subjects) in enumerate(self.subjects.items(), start=1)
        ]


def _entry(cell: Cell, best: float | None, usual_n: int | None, source: str) -> Entry:
    sample = cell.statistics
    flags = []
    if sample and sample.n != usual_n:
        flags.append(f"n={sample.n}")
    for count, name in ((cell.diverged, "diverged"), (cell.failed, "failed")):
        if count:
            flags.append(f"{count} {name}")
    if cell.solved and 0 < cell.solved[0] < cell.solved[1]:
        # Half of the seeds at zero and half at chance: the mean alone would mislead.
        flags.append(f"{cell.solved[0]} of {cell.solved[1]} solved")
    if len({record.seed for record in cell.records}) < len(cell.records):
        flags.append("a seed counts twice")
    interval = sample.ci95 if sample and sample.n >= FEWEST_SEEDS else None
    return Entry(
        value=number(sample.mean, cell.column.metric) if sample else "",
        spread="" if interval is None else number(interval, cell.column.metric, digits=2),
        n=sample.n if sample else 0,
        best=sample is not None and sample.mean == best and not cell.diverged,
        flags=tuple(flags),
        marks="†" if any(record.source != source for record in cell.records) else "",
    )


def _published_entry(
    paper: str, column: Column, cell: Cell | None, model: str, notes: _Notes
) -> Entry:
    found = published(paper, column.task, model)
    if found is None:
        return Entry()
    reason = _unlike(cell, found)
    task = _header(column, with_protocol=False).task
    return Entry(
        value=found.printed, marks=notes.mark(task, plain(model), reason) if reason else ""
    )


def _unlike(cell: Cell | None, found: PublishedCell) -> str | None:
    if cell is None:
        return None
    # One that came to a score knows best what may not be compared.
    runs = sorted(cell.records, key=lambda record: record.score is None)
    return like_for_like(replace(runs[0], parameters=cell.parameters), found)


def _best(cells: Iterable[Cell]) -> float | None:
    # A mean over the survivors of divergence does not compete, nor does a model on its own.
    cells = [cell for cell in cells if cell.statistics]
    means = [cell.statistics.mean for cell in cells if cell.statistics and not cell.diverged]
    if len(cells) < 2 or not means or cells[0].column.direction is None:
        return None
    return min(means) if cells[0].column.direction == "min" else max(means)


def _bound(values: Iterable[float | None], metric: str | None) -> Entry:
    value = next((value for value in values if value is not None), None)
    return Entry(value=" " if value is None else number(value, metric))


def _header(column: Column, with_protocol: bool) -> Header:
    task = plain(column.task)
    if column.length is not None:
        task += f" T={column.length}"
    if column.variant:
        task += f" [{plain(column.variant)}]"
    measure = metric_name(column.metric) if column.metric else "no score"
    if column.split not in (None, "test"):
        measure = f"{plain(column.split or '')} {measure}"
    choices = [column.budget, column.protocol if with_protocol else None]
    named = ", ".join(plain(choice) for choice in choices if choice)
    return Header(
        task, f"{measure} {ARROWS[column.direction]}".strip() + (f" ({named})" if named else "")
    )


def _label(model: str, variant: str) -> str:
    return f"{plain(model)} ({plain(variant)})" if variant else plain(model)


def _by_model(cell: Cell) -> tuple[str, str]:
    return cell.model, cell.variant


def _usual_n(cells: Iterable[Cell]) -> int | None:
    """The commonest number of seeds, which cells need not repeat; `None` if too small for that."""
    counts = Counter(cell.statistics.n for cell in cells if cell.statistics)
    most = max(counts, key=lambda n: (counts[n], n), default=0)
    return most if most >= FEWEST_SEEDS else None


def _explanations(
    cells: Sequence[Cell], usual_n: int | None, protocols: set[str | None], source: str
) -> list[str]:
    lines = []
    sizes = [cell.statistics.n for cell in cells if cell.statistics]
    if max(sizes, default=0) >= FEWEST_SEEDS:
        seeds = f"; n={usual_n} seeds where no n is given" if usual_n else ""
        lines.append(f"mean ± half of its 95% confidence interval (Student's t){seeds}")
    if min(sizes, default=FEWEST_SEEDS) < FEWEST_SEEDS:
        lines.append("n=1 and n=2 are too few seeds for an interval")
    if protocols not in ({None}, set()) and len(protocols) == 1:
        lines.append(f"protocol {plain(str(*protocols))}")
    old = [r.run_id[:8] for cell in cells for r in cell.records if r.source != source]
    if old:
        listed = ", ".join(map(plain, old[:5])) + (", ..." if len(old) > 5 else "")
        runs = "1 run" if len(old) == 1 else f"{len(old)} runs"
        lines.append(f"† run with older code ({runs}: {listed})")
    return lines


def number(value: float, metric: str | None = None, digits: int = 3) -> str:
    """A number to a few significant digits; accuracies in per cent.

    Below 0.001 in scientific notation, and never fewer digits than a whole number has.
    """
    if metric is not None and is_accuracy(metric):
        value *= 100
    size = abs(value)
    if size == 0:
        return "0"
    if size < 1e-3 or size >= 1e7:
        mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        return f"{mantissa}e{int(exponent)}"
    decimals = digits - 1 - math.floor(math.log10(size))
    # Rounding may carry: 9.996 has one decimal less than its size says.
    decimals -= abs(round(value, decimals)) >= 10 ** (digits - decimals)
    return f"{value:.{max(0, decimals)}f}"


def metric_name(metric: str) -> str:
    """What a metric is called on a screen, with its unit."""
    name = METRICS.get(metric, plain(metric).replace("_", " "))
    return f"{name} %" if is_accuracy(metric) else name


def is_accuracy(metric: str) -> bool:
    """Whether a metric is a fraction that screens show in per cent."""
    return metric.endswith("accuracy")


def plain(text: str) -> str:
    """Text without control characters, line breaks and what else could move a cursor."""
    return "".join(c for c in text if c.isprintable())


def render_markdown(table: Table) -> str:
    """A table as GitHub's Markdown, with the best means in bold."""
    lines = [
        _markdown_row(["model", *map(str, table.columns)]),
        "|" + "|".join(["---", *["---:"] * len(table.columns)]) + "|",
    ]
    for row in table.rows:
        lines.append(_markdown_row([row.label]) + _markdown_entries(row.entries))
    notes = [f"- {_markdown(note)}" for note in table.notes]
    return "\n".join([f"**{_markdown(table.title)}**", "", *lines, "", *notes]) + "\n"


def _markdown_row(texts: Iterable[str]) -> str:
    return "|" + "".join(f" {_markdown(text)} |" for text in texts)


def _markdown_entries(entries: Iterable[Entry]) -> str:
    texts = []
    for entry in entries:
        text = f"**{_markdown(entry.number)}**" if entry.best else _markdown(entry.number)
        flags = f" ({', '.join(entry.flags)})" if entry.flags else ""
        texts.append(f" {text.strip()}{entry.marks}{flags} |")
    return "".join(texts)


def _markdown(text: str) -> str:
    # An underscore inside a word, as in char_ptb, is an ordinary character.
    return re.sub(r"[\\`*<>\[\]|~&$]|\b_|_\b", r"\\\g<0>", text)


@dataclass(frozen=True, kw_only=True)
class Line:
    """A cell for programs: numbers as measured, accuracies as fractions, nothing rounded."""

    task: str
    length: int | None
    budget: str | None
    protocol: str | None
    model: str
    variant: str
    parameters: int | None
    metric: str | None
    split: str | None
    direction: str | None
    n: int
    mean: float | None
    sd: float | None
    ci95: float | None
    median: float | None
    min: float | None
    max: float | None
    solved: float | None
    baseline: float | None
    optimum: float | None
    failed: int
    diverged: int
    older_code: int
    published: float | None
    not_like_for_like: str | None
    run_ids: list[str] = field(default_factory=list)


def long_form(cells: Iterable[Cell], source: str, paper: str | None = None) -> list[Line]:
    """A line for each cell.

    Raises:
        ConfigError: there is no such paper.
    """
    return [_line(cell, source, paper) for cell in cells]


def _line(cell: Cell, source: str, paper: str | None) -> Line:
    column, sample = cell.column, cell.statistics
    found = published(paper, column.task, cell.model) if paper else None
    return Line(
        task=plain(column.task),
        length=column.length,
        budget=column.budget and plain(column.budget),
        protocol=column.protocol and plain(column.protocol),
        model=plain(cell.model),
        variant=plain(", ".join(filter(None, [column.variant, cell.variant]))),
        parameters=cell.parameters,
        metric=column.metric and plain(column.metric),
        split=column.split and plain(column.split),
        direction=column.direction,
        n=sample.n if sample else 0,
        mean=sample and sample.mean,
        sd=sample and sample.sd,
        ci95=sample and sample.ci95,
        median=sample and sample.median,
        min=sample and sample.min,
        max=sample and sample.max,
        solved=cell.solved[0] / cell.solved[1] if cell.solved else None,
        baseline=cell.baseline,
        optimum=cell.optimum,
        failed=cell.failed,
        diverged=cell.diverged,
        older_code=sum(record.source != source for record in cell.records),
        published=found and found.value,
        not_like_for_like=_unlike(cell, found) if found else None,
        run_ids=[plain(record.run_id) for record in cell.records],
    )


def render_csv(lines: Iterable[Line]) -> str:
    """Long form as CSV, run ids separated by spaces; no cell is a formula to a spreadsheet."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Line.__dataclass_fields__)
    for line in lines:
        values = vars(line) | {"run_ids": " ".join(line.run_ids)}
        writer.writerow(_inert(value) for value in values.values())
    return text.getvalue()


def _inert(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@") else value


def render_json(lines: Iterable[Line]) -> str:
    """Long form as a list of objects."""
    return json.dumps([vars(line) for line in lines], indent=2, allow_nan=False) + "\n"
