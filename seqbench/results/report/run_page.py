"""Build the report's data of one run: rounded texts and its curves."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from seqbench.errors import ConfigError
from seqbench.results.collect import Unfinished
from seqbench.results.command import UNKNOWN, command
from seqbench.results.curves import Curves
from seqbench.results.papers import LIKE, comparability, published
from seqbench.results.recipe import differences
from seqbench.results.summary import (
    fact_texts,
    finished,
    log_end,
    other_measured,
    score_rows,
    setting_text,
    training_facts,
)
from seqbench.results.where import MISSING, flatten
from seqbench.runs.confusion import ConfusionMatrix, read_confusion
from seqbench.runs.forecasts import ForecastWindow, read_forecasts
from seqbench.runs.record import Record
from seqbench.wording import (
    count,
    duration,
    is_accuracy,
    metric_name,
    number,
    plain,
    task_with_size,
)

Rows = list[list[str]]

# Significant digits of a curve's values: a screen cannot show more.
DIGITS = 4
# Limits for untrusted records; a normal run has about 40 settings and 6 curves.
MOST_ROWS = 200
MOST_CURVES = 24
LONGEST_VALUE = 400
# A larger confusion matrix cannot be read: its most frequent mistakes are listed instead.
MOST_CLASSES, MOST_MISTAKES = 30, 20


def run_page(
    run: Record | Unfinished, folder: Path, curves: Curves, points: int, paper: str | None
) -> dict[str, Any]:
    """Return a run as plain data.

    Args:
        run: the run's record, or its `Unfinished` if it has none.
        folder: the run's folder.
        curves: as returned by `read_curves`.
        points: point budget of all curves of the run.
        paper: name of a paper whose published value to include.

    Raises:
        ConfigError: if there is no such paper.
    """
    if isinstance(run, Record):
        facts = _of_record(run, paper)
    else:
        facts = {"steps": run.steps, "finished": run.touched, "sections": []}
    options = flatten(run.config)
    if isinstance(run, Record):
        options |= {f"{key} (default)": value for key, value in flatten(run.defaults).items()}
    return {
        "id": plain(run.run_id),
        "task": plain(run.task),
        "size": task_with_size(run.task, _length(run)),
        "model": plain(run.model),
        "seed": plain(str(run.config.get("seed", "-"))),
        "budget": plain(str(run.config.get("budget") or "-")),
        "protocol": plain(str(run.config.get("protocol") or "-")),
        "status": run.status if isinstance(run, Record) else "unfinished",  # a page is not live
        "folder": plain(str(folder)),
        "log": "" if run.status == "completed" else log_end(folder / "log.txt"),
        **_again(run.config),
        "differences": [
            [_short(key), *("-" if value is MISSING else _setting(value) for value in pair)]
            for key, *pair in differences(run.config)[:MOST_ROWS]
        ],
        "config": rows({key: _setting(value) for key, value in options.items()}),
        "curves": curves_of(curves, points),
        "confusion": confusion_of(read_confusion(folder / "confusion.json")),
        "forecasts": forecasts_of(read_forecasts(folder / "forecasts.json")),
        **facts,
    }


def _of_record(record: Record, paper: str | None) -> dict[str, Any]:
    found = record.score
    metric = found.metric if found else None
    percent = " %" if metric and is_accuracy(metric) else ""
    seconds = record.measured.get("seconds")
    age = "" if record.is_current else " (not the code in use here)"
    training = {"parameters": count(record.parameters)} | training_facts(record)
    environment = record.versions | {"source": record.source + age}
    return {
        "score": number(found.value, metric) + percent if found else "-",
        "measure": metric_name(found.metric).removesuffix(percent) if found else "",
        "value": _real(found.value if found else None, metric),
        "metric": metric and plain(metric),
        "steps": record.steps,
        "seconds": seconds if isinstance(seconds, int | float) else None,
        "took": duration(seconds),
        "finished": plain(finished(record))[:25],
        "error": plain(record.error or ""),
        "baseline": _real(record.baseline, metric),
        "baseline_name": plain(record.baseline_name),
        "optimum": _real(record.optimum, metric),
        "direction": found.direction if found else None,
        "published": _published(record, paper),
        "sections": [
            ["Score", rows(score_rows(record))],
            ["Metrics", _metrics(record)],
            ["Training", rows(training | fact_texts(record.notes))],
            ["Environment", rows(other_measured(record) | environment)],
            ["Data (SHA-256)", rows(record.data)],
        ],
    }


def _published(record: Record, paper: str | None) -> dict[str, Any] | None:
    cell = published(paper, record) if paper else None
    if cell is None:
        return None
    return {
        "theirs": cell.text,
        "verdict": plain(said := comparability(record, cell)),
        "like": said == LIKE,
        "caveats": list(cell.caveats),
    }


def _metrics(record: Record) -> Rows:
    return [
        [plain(f"{split} {metric_name(name)}"), number(value, name)]
        for split, values in record.metrics.items()
        for name, value in values.items()
    ][:MOST_ROWS]


def _again(config: dict[str, Any]) -> dict[str, str]:
    try:
        words = command(config)
    except ConfigError as error:
        return {"command": "", "remark": _short(str(error))}
    own = f"--config-dir {UNKNOWN} " in words
    remark = f"{UNKNOWN} is the folder of configurations with this model or task." if own else ""
    return {"command": words, "remark": remark}


def confusion_of(matrix: ConfusionMatrix | None) -> dict[str, Any] | None:
    """Return a confusion matrix with its scores; of many classes the frequent mistakes only."""
    if matrix is None:
        return None
    scores = {"balanced_accuracy": matrix.balanced_accuracy, "macro_f1": matrix.macro_f1}
    return {
        "scores": [[metric_name(name), number(value, name)] for name, value in scores.items()],
        "classes": [_short(name) for name in matrix.names[:MOST_CLASSES]],
        "counts": matrix.counts if len(matrix.counts) <= MOST_CLASSES else [],
        "recalls": [number(recall, "accuracy") for recall in matrix.recalls[:MOST_CLASSES]],
        "mistakes": [
            [_short(matrix.names[true]), _short(matrix.names[predicted]), count]
            for true, predicted, count in matrix.mistakes(MOST_MISTAKES)
        ],
    }


def forecasts_of(windows: list[ForecastWindow]) -> list[dict[str, Any]]:
    """Return the values of each target in each window, rounded."""
    found = []
    for window in windows:
        series = f"{window.series}, " if window.series else ""
        for target, lines in window.lines.items():
            values = {
                name: [None if x is None else float(f"{x:.{DIGITS + 2}g}") for x in line]
                for name, line in vars(lines).items()
            }
            found.append(
                {
                    "target": _short(target),
                    "name": _short(f"{series}{window.name}"),
                    "error": f"MSE {number(window.error)}",
                    "times": [plain(t)[:26] if isinstance(t, str) else t for t in window.times],
                    "naive_name": plain(window.naive)[:40],
                    **values,
                }
            )
    return found


def curves_of(curves: Curves, points: int) -> list[dict[str, Any]]:
    """Return thinned and rounded curves, grouped by split and steps."""
    if len(curves) > MOST_CURVES:
        curves = dict(list(curves.items())[:MOST_CURVES])
    most = max(2, points // max(1, len(curves)))
    grouped: dict[tuple[str, tuple[int, ...]], dict[str, Any]] = {}
    for (split, metric), curve in curves.items():
        thin = curve.thinned(most)
        values = grouped.setdefault((split, thin.steps), {})
        values[plain(metric)] = rounded(thin.values, metric)
    return [
        {"split": plain(split), "steps": list(steps), "values": values}
        for (split, steps), values in grouped.items()
    ]


def rounded(values: Iterable[float], metric: str) -> list[float | None]:
    """Return values as the page draws them: 4 significant digits, accuracies in per cent."""
    return [_real(value, metric) for value in values]


def rows(facts: dict[str, str]) -> Rows:
    """Return names and texts, at most 200 of them and a row with the number left out."""
    lines = [[_short(name), _short(text)] for name, text in list(facts.items())[:MOST_ROWS]]
    if len(facts) > MOST_ROWS:
        lines.append(["...", f"{len(facts) - MOST_ROWS:,} more"])
    return lines


def _setting(value: Any) -> str:
    return _short(setting_text(value))


def _short(text: str) -> str:
    return plain(text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}...")


def _real(value: float | None, metric: str | None) -> float | None:
    if value is None:
        return None
    shown = float(f"{value * 100 if metric and is_accuracy(metric) else value:.{DIGITS}g}")
    return shown if math.isfinite(shown) else None


def _length(run: Record | Unfinished) -> object:
    if isinstance(run, Record):
        return run.length
    task = run.config.get("task")
    return task.get("length") if isinstance(task, dict) else None
