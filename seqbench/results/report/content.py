"""Everything that the page shows, as plain data, read from runs on disk."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import seqbench
from seqbench.results.aggregate import aggregate
from seqbench.results.collect import Unfinished
from seqbench.results.curves import read_curves
from seqbench.results.report.comparison import (
    figures_of,
    label,
    models_of,
    paper_for,
    table_of,
    verdicts_of,
)
from seqbench.results.report.run_page import run_page
from seqbench.results.verdict import explanation
from seqbench.runs.code_hash import source_hash
from seqbench.runs.record import Record
from seqbench.wording import metric_name, plain

# Points that all curves of a page may have together, some six characters each: 200 runs stay well
# below 8 MB, of which Plotly takes 4.8.
MOST_POINTS = 200_000
# A curve that is drawn needs some, however many runs there are; and more than these nobody sees.
FEWEST, MOST = 60, 600


def build_content(
    records: Sequence[Record],
    unfinished: Sequence[Unfinished],
    folders: Mapping[str, Path],
    *,
    left_out: Sequence[str] = (),
    paper: str | None = None,
) -> dict[str, Any]:
    """What the page shows.

    Args:
        records: of runs that are over.
        unfinished: runs without a record.
        folders: run_id -> where a record was found.
        left_out: a line for each record that cannot be read.
        paper: whose numbers to put beside; `None`: a paper that reports on one of the tasks.

    Raises:
        ConfigError: there is no such paper.
    """
    cells = aggregate(records)
    paper = paper or paper_for(cells)
    # One half goes to runs, the other to their cells.
    points = min(MOST, max(FEWEST, MOST_POINTS // 2 // max(1, len(records) + len(unfinished))))
    labels = {record.run_id: label(cell) for cell in cells for record in cell.records}
    newest = sorted(records, key=lambda r: str(r.measured.get("finished", "")), reverse=True)
    curves = {record.run_id: read_curves(folders[record.run_id]) for record in newest}
    pages = [
        run_page(record, folders[record.run_id], curves[record.run_id], points, paper)
        | {"label": labels[record.run_id]}
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
        "models": models_of(cells, [page["model"] for page in pages]),
        "table": table_of(cells, source_hash(), paper),
        "verdicts": verdicts,
        "verdict_notes": explanation(row["verdict"] for row in verdicts),
        "figures": figures_of(cells, curves, indices, points),
        "metrics": {name: metric_name(name) for page in pages for name in _metrics(page)},
        "runs": pages,
    }


def _metrics(page: dict[str, Any]) -> list[str]:
    return [name for curve in page["curves"] for name in curve["values"]]
