"""Compare a paper's published numbers with measured ones, with a verdict on each."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from seqbench.results.cells import Cell, aggregate, standings
from seqbench.results.metric import in_metric
from seqbench.results.papers import PublishedCell, explanation, load_paper, read_paper, verdict
from seqbench.results.statistics import FEWEST_SEEDS
from seqbench.results.tables.comparison import SHOWN, measured
from seqbench.results.tables.layout import ARROWS
from seqbench.results.tables.notes import FACTOR_NOTE, OLDER, OLDER_CODE, TIED_NOTE
from seqbench.results.tables.table import Entry, Header, Row, Table, superscript
from seqbench.results.targets import Target
from seqbench.runs.record import Record
from seqbench.wording import is_accuracy, metric_name, number, plain

COLUMNS = ("published", "measured", "verdict", "difference", "solved", "parameters", "seconds")
OF_PUBLISHED = ("published", "verdict", "difference")


def build_reproduction(
    paper: str,
    found: Mapping[Target, Sequence[Record]],
    seeds: int,
) -> Table:
    """Build a table of published and measured numbers, a row for each target.

    Args:
        paper: name of the paper.
        found: target -> its records; empty if it was not measured.
        seeds: number of seeds requested.
    """
    found = {target: in_metric(target.row.metric, records) for target, records in found.items()}
    # A target has one cell, or several if its runs differ in more than the seed (such as the data).
    cells = aggregate(record for records in found.values() for record in records)
    rows: list[tuple[Target, Cell | None]] = []
    for target, records in found.items():
        run_ids = {record.run_id for record in records}
        of_target = [cell for cell in cells if cell.records[0].run_id in run_ids]
        rows += [(target, cell) for cell in of_target] or [(target, None)]
    standing = dict(zip(map(id, cells), standings(cells), strict=True))
    usual_n = seeds if seeds >= FEWEST_SEEDS else None
    verdicts = [verdict(cell, target.published) for target, cell in rows]
    reasons = list(dict.fromkeys(said.reason for said in verdicts if said.reason))
    is_older = False
    has_published = any(load_paper(paper).values())
    columns = [name for name in COLUMNS if has_published or name not in OF_PUBLISHED]
    table_rows = []
    for (target, cell), said in zip(rows, verdicts, strict=True):
        entries: dict[str, Entry | None] = dict.fromkeys(columns)
        if target.published:
            entries["published"] = Entry(target.published.printed)
        if has_published:
            mark = superscript(reasons.index(said.reason) + 1) if said.reason else ""
            entries["verdict"] = Entry(said.words, marks=mark)
        if cell:
            entry = measured(cell, standing[id(cell)], usual_n)
            if not all(record.is_current for record in cell.records):
                entry, is_older = replace(entry, marks=entry.marks + OLDER), True
            entries["measured"] = entry
            for name in ("solved", "parameters", "seconds"):
                entries[name] = Entry(SHOWN[name].text(cell))
            if cell.statistics and target.published:
                entries["difference"] = Entry(_difference(cell, target.published))
        label = plain(target.label)
        if cell and sum(other is target for other, _ in rows) > 1:
            label += f" ({plain(cell.variant)})"
        table_rows.append(Row(label, tuple(entries.values())))
    return Table(
        title=f"{plain(paper)}: {'published and measured' if has_published else 'measured'}",
        columns=tuple(Header(SHOWN[n].header if n in SHOWN else n, "") for n in columns),
        rows=tuple(table_rows),
        notes=(
            *_notes(paper, [target for target, _ in rows]),
            f"measured: mean ± half of its 95% confidence interval over seeds (Student's t), n runs"
            f" or {seeds}; fewer than {FEWEST_SEEDS} give no interval, and a hint at most",
            *([FACTOR_NOTE] if any(cell.log for cell in cells) else []),
            *explanation(said.words for said in verdicts),
            *([TIED_NOTE] if "tied" in standing.values() else []),
            *([f"{OLDER} run {OLDER_CODE}"] if is_older else []),
            *(f"{superscript(i)} {plain(reason)}" for i, reason in enumerate(reasons, start=1)),
        ),
        stub="task, model",
    )


def _difference(cell: Cell, published: PublishedCell) -> str:
    if cell.statistics is None or cell.column.metric != published.row.metric:
        return "-"
    off = cell.statistics.mean - published.value
    return f"{'+' if off > 0 else ''}{number(off, published.row.metric)}"


def _notes(paper: str, shown: Sequence[Target]) -> list[str]:
    """Return notes on the published numbers, their metrics, and tasks that seqbench lacks."""
    facts: dict[str, Any] = read_paper(paper)
    rows = {target.row.task: target.row for target in shown}
    metrics = [
        f"{task}: {metric_name(row.metric)} {ARROWS[row.direction]}"
        + (f" at T={row.length}" if row.length else "")
        for task, row in rows.items()
    ]
    missing = dict.fromkeys(row.task for row in load_paper(paper) if not row.run)
    points = any(is_accuracy(row.metric) for row in rows.values())
    notes = ["; ".join(metrics)]
    if any(load_paper(paper).values()):
        notes = [
            f"published: {facts['source']}; {facts['reduction']}; what is doubtful about each"
            f" number stands in configs/paper/{paper}.yaml and in `seqbench show RUN`",
            *notes,
            "difference: measured less published" + (", of accuracies in points" if points else ""),
        ]
    trained = {target.model for target in shown}
    others = {
        target.row: [f"{cell.model} {cell.printed}" for cell in of_row if cell.model not in trained]
        for target in shown
        for of_row in [load_paper(paper)[target.row].values()]
    }
    if any(others.values()):
        listed = [f"{row.name}: {', '.join(cells)}" for row, cells in others.items() if cells]
        notes.append(f"published for other models: {'; '.join(listed)}")
    return notes + ([f"in the paper, not run here: {', '.join(missing)}"] if missing else [])
