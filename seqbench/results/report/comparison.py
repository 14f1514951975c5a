"""Build the report's comparison: verdicts against a paper, and curves over seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from seqbench.results.cells import Cell, Column, aggregate
from seqbench.results.curves import Curve, Curves, band
from seqbench.results.metric import in_metric
from seqbench.results.papers import load_paper, papers, published, verdict
from seqbench.results.report.run_page import MOST_CURVES, rounded
from seqbench.results.tables.comparison import measured
from seqbench.results.tables.layout import measure_text, task_text
from seqbench.wording import is_accuracy, metric_name, plain

# Maximum number of points of a line; a chart is about 700 pixels wide.
MOST_DRAWN = 200


def paper_for(cells: Sequence[Cell]) -> str | None:
    """Return the first (oldest) paper that has one of the tasks; `None` if none has."""
    tasks = {cell.column.task for cell in cells}
    return next((p for p in papers() if tasks & {row.task for row in load_paper(p)}), None)


def verdicts_of(cells: Sequence[Cell], paper: str | None) -> list[dict[str, Any]]:
    """Return measured value, published value and verdict of each cell that the paper reports.

    Raises:
        ConfigError: if there is no such paper.
    """
    found = [(c, published(paper, c.records[0])) for c in cells if paper]
    same = [(_in_metric(c, theirs.row.metric), theirs) for c, theirs in found if theirs]
    judged = [(cell, theirs, verdict(cell, theirs)) for cell, theirs in same]
    return [
        {
            "task": plain(cell.column.task),
            "size": task_text(cell.column),
            "label": cell.label,
            "metric": metric_name(cell.column.metric or theirs.row.metric),
            "ours": _ours(cell),
            "theirs": theirs.text,
            "verdict": said.words,
            "reason": plain(said.reason),
            "caveats": list(theirs.caveats),
        }
        for cell, theirs, said in judged
    ]


def _in_metric(cell: Cell, metric: str) -> Cell:
    """Return a cell with a paper's metric as its score, if its runs have it."""
    if cell.column.metric == metric:
        return cell
    [found] = aggregate(in_metric(metric, cell.records))
    return replace(
        found, column=replace(found.column, variant=cell.column.variant), variant=cell.variant
    )


def figures_of(
    cells: Sequence[Cell], curves: Mapping[str, Curves], indices: Mapping[str, int], points: int
) -> list[dict[str, Any]]:
    """Return a figure per table column: a chart per metric, a line and band per model.

    Args:
        cells: the table's cells.
        curves: run_id -> the run's curves.
        indices: run_id -> index in the page's list of runs.
        points: point budget of a cell's curves per run, over all metrics.
    """
    columns: dict[Column, list[Cell]] = {}
    for cell in cells:
        columns.setdefault(cell.column, []).append(cell)
    figures = [
        {
            "task": plain(column.task),
            "title": task_text(column),
            "measure": measure_text(column),
            "baseline": _bound(members, "baseline", column.metric),
            "baseline_name": plain(members[0].records[0].baseline_name),
            "optimum": _bound(members, "optimum", column.metric),
            "direction": column.direction,
            "charts": _charts(column, members, curves, indices, points),
        }
        for column, members in columns.items()
    ]
    return [figure for figure in figures if figure["charts"]]


def _charts(
    column: Column,
    cells: Sequence[Cell],
    curves: Mapping[str, Curves],
    indices: Mapping[str, int],
    points: int,
) -> list[dict[str, Any]]:
    """Return a chart for each split and metric, the metric that ranks models first."""
    lines: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for cell in cells:
        seeds = {indices[r.run_id]: curves.get(r.run_id, {}) for r in cell.records}
        keys = list(dict.fromkeys(key for of_run in seeds.values() for key in of_run))[:MOST_CURVES]
        room = points * len(seeds) // max(1, len(keys))
        for key in keys:
            having = {index: of_run[key] for index, of_run in seeds.items() if key in of_run}
            line = _line(list(having.values()), key[1], room)
            line |= {"label": cell.label, "runs": list(having)}
            lines.setdefault(key, []).append(line)
    return [
        {
            "split": plain(split),
            "metric": plain(metric),
            "name": f"{plain(split)} {metric_name(metric)}",
            "scored": metric == column.metric,
            "may_be_log": not is_accuracy(metric),
            "lines": lines[split, metric],
        }
        for split, metric in sorted(lines, key=lambda key: _order(key, column))
    ]


def _line(curves: list[Curve], metric: str, points: int) -> dict[str, Any]:
    together = band(curves)
    # A single seed has no band.
    kinds = ("median", "low", "high") if together.n > 1 else ("median",)
    most = max(2, min(MOST_DRAWN, points // len(kinds)))
    thin = {kind: Curve(together.steps, getattr(together, kind)).thinned(most) for kind in kinds}
    return {
        "n": together.n,
        "steps": list(thin["median"].steps),
        **{kind: rounded(curve.values, metric) for kind, curve in thin.items()},
    }


def _order(key: tuple[str, str], column: Column) -> tuple[bool, bool, bool, str, str]:
    """Return the sort key of charts: the ranking metric, then the loss; validation first."""
    split, metric = key
    return metric != column.metric, metric != "loss", split != "valid", metric, split


def _ours(cell: Cell) -> str:
    entry = measured(cell, None, None)
    return entry.number if entry.spread or not entry.n else f"{entry.number} (n={entry.n})"


def _bound(cells: Sequence[Cell], name: str, metric: str | None) -> float | None:
    known = [value for cell in cells if (value := getattr(cell, name)) is not None]
    return rounded(known[:1], metric or "")[0] if known else None
