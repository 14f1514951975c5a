"""Collect the contents of the report page as plain data, read from runs on disk."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import seqbench
from seqbench.config.compression import method
from seqbench.results.cells import aggregate
from seqbench.results.collect import Unfinished
from seqbench.results.compression import uncompressed
from seqbench.results.curves import read_curves
from seqbench.results.looks import looks_of
from seqbench.results.papers import explanation
from seqbench.results.report.comparison import figures_of, paper_for, verdicts_of
from seqbench.results.report.run_page import run_page
from seqbench.results.summary import finished
from seqbench.results.tables.comparison import build_table
from seqbench.results.tables.table import Table
from seqbench.runs.record import Record
from seqbench.wording import metric_name, plain

# Point budget of all curves of a page, about six characters each: 200 runs stay well below 8 MB, of
# which Plotly takes 4.8 MB.
MOST_POINTS = 200_000
# Limits of a run's share: fewer points distort its curves, more are not visible.
FEWEST, MOST = 60, 600


def build_content(
    records: Sequence[Record],
    unfinished: Sequence[Unfinished],
    folders: Mapping[str, Path],
    *,
    left_out: Sequence[str] = (),
    paper: str | None = None,
) -> dict[str, Any]:
    """Return the contents of the page, ready for JSON.

    Args:
        records: the records of finished runs.
        unfinished: runs without a record.
        folders: run_id -> run folder, for each record.
        left_out: an error message for each record that cannot be read.
        paper: name of a paper to compare with; `None` for the first that has one of the tasks.

    Raises:
        ConfigError: if there is no such paper.
    """
    cells = aggregate(uncompressed(records))
    paper = paper or paper_for(cells)
    # Half of the budget is for the curves of runs, half for those of cells.
    points = min(MOST, max(FEWEST, MOST_POINTS // 2 // max(1, len(records) + len(unfinished))))
    labels = {record.run_id: cell.label for cell in cells for record in cell.records}
    newest = sorted(records, key=finished, reverse=True)
    curves = {record.run_id: read_curves(folders[record.run_id]) for record in newest}
    pages = [
        run_page(record, folders[record.run_id], curves[record.run_id], points, paper)
        | {"label": labels.get(record.run_id) or _compressed_label(record)}
        for record in newest
    ]
    pages += [
        run_page(run, run.folder, read_curves(run.folder), points, paper)
        | {"label": plain(run.model)}
        for run in unfinished
    ]
    verdicts = verdicts_of(cells, paper)
    indices = {record.run_id: i for i, record in enumerate(newest)}
    return {
        "version": seqbench.__version__,
        "created": datetime.now(timezone.utc).isoformat(timespec="minutes")[:16],
        "paper": paper and plain(paper),
        "counts": dict(Counter(page["status"] for page in pages).most_common()),
        "left_out": [plain(line) for line in left_out[:100]],
        "models": [vars(look) for look in looks_of(cells, [page["model"] for page in pages])],
        "table": _table(build_table(cells, paper)) if cells else None,
        "verdicts": verdicts,
        "verdict_notes": explanation(row["verdict"] for row in verdicts),
        "figures": figures_of(cells, curves, indices, points),
        "metrics": {name: metric_name(name) for page in pages for name in _metrics(page)},
        "runs": pages,
    }


def _compressed_label(record: Record) -> str:
    return plain(f"{record.model} ({method(record.config)})")


def _table(table: Table) -> dict[str, Any]:
    """Return a table as plain data, with the text of each number."""
    data = asdict(table)
    for row, shown in zip(table.rows, data["rows"], strict=True):
        for entry, facts in zip(row.entries, shown["entries"], strict=True):
            if entry:
                facts["number"] = entry.number
    return data


def _metrics(page: dict[str, Any]) -> list[str]:
    return [name for curve in page["curves"] for name in curve["values"]]
