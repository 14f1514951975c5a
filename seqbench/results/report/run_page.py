"""Build the report's data of one run: rounded texts and its curves."""

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from seqbench.errors import ConfigError
from seqbench.results.collect import Unfinished
from seqbench.results.command import command
from seqbench.results.curves import Curve
from seqbench.results.papers import like_for_like, published
from seqbench.results.recipe import differences
from seqbench.results.where import MISSING, flatten
from seqbench.runs.code_hash import source_hash
from seqbench.runs.record import Record
from seqbench.wording import (
    duration,
    is_accuracy,
    metric_name,
    number,
    plain,
    score,
    task_with_size,
)

Rows = list[list[str]]
Curves = dict[tuple[str, str], Curve]

# Significant digits of a curve's values: a screen cannot show more.
DIGITS = 4
# Limits for untrusted records; a normal run has about 40 settings and 6 curves.
MOST_ROWS = 200
MOST_CURVES = 24
LONGEST_VALUE = 400
# Bytes shown from the end of a log: enough for the traceback.
LOG_TAIL = 6000


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
    return {
        "id": plain(run.run_id),
        "task": plain(run.task),
        "size": task_with_size(run.task, _length(run)),
        "model": plain(run.model),
        "seed": plain(str(run.config.get("seed", "-"))),
        "budget": plain(str(run.config.get("budget") or "-")),
        "protocol": plain(str(run.config.get("protocol") or "-")),
        "status": run.status,
        "folder": plain(str(folder)),
        "log": "" if run.status == "completed" else log_end(folder / "log.txt"),
        **_again(run.config),
        "differences": [
            [_short(key), *("-" if value is MISSING else _setting(value) for value in pair)]
            for key, *pair in differences(run.config)[:MOST_ROWS]
        ],
        "config": rows({key: _setting(value) for key, value in flatten(run.config).items()}),
        "curves": curves_of(curves, points),
        **facts,
    }


def _of_record(record: Record, paper: str | None) -> dict[str, Any]:
    found = record.score
    metric = found.metric if found else None
    percent = " %" if metric and is_accuracy(metric) else ""
    measured = dict(record.measured)
    seconds = measured.pop("seconds", None)
    age = "" if record.source == source_hash() else " (not the code in use here)"
    return {
        "score": number(found.value, metric) + percent if found else "-",
        "measure": metric_name(found.metric).removesuffix(percent) if found else "",
        "value": _real(found.value if found else None, metric),
        "metric": metric and plain(metric),
        "steps": record.steps,
        "seconds": seconds if isinstance(seconds, int | float) else None,
        "took": duration(seconds),
        "finished": plain(str(measured.get("finished", "")))[:25],
        "error": plain(record.error or ""),
        "baseline": _real(record.baseline, metric),
        "optimum": _real(record.optimum, metric),
        "direction": found.direction if found else None,
        "published": _published(record, paper),
        "sections": [
            ["Score", _scores(record)],
            ["Metrics", _metrics(record)],
            [
                "Training",
                rows(
                    {
                        "parameters": record.parameters,
                        "steps": record.steps,
                        "time steps read": record.tokens,
                        "time": duration(seconds),
                        **_words(record.notes),
                    }
                ),
            ],
            [
                "Environment",
                rows({**_words(measured), **record.versions, "source": record.source + age}),
            ],
            ["Data (SHA-256)", rows(record.data)],
        ],
    }


def _scores(record: Record) -> Rows:
    found = record.score
    metric = found.metric if found else None
    lines: Rows = []
    if found:
        better = "lower" if found.direction == "min" else "higher"
        reached = score(found.metric, found.value)
        lines.append(["reached", f"{reached} on {plain(found.split)} ({better} is better)"])
    for name, bound in (("without memory", record.baseline), ("best possible", record.optimum)):
        if bound is not None:
            lines.append([name, score(metric, bound) if metric else number(bound)])
    return lines


def _published(record: Record, paper: str | None) -> dict[str, Any] | None:
    cell = published(paper, record.task, record.model) if paper else None
    if cell is None:
        return None
    reason = like_for_like(record, cell)
    return {
        "theirs": f"{cell.printed} {cell.unit}".strip(),
        "verdict": plain(f"not like for like: {reason}" if reason else "like for like"),
        "like": reason is None,
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
    own = "--config-dir" in words
    remark = "FOLDER is the folder of configurations with this model or task." if own else ""
    return {"command": words, "remark": remark}


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


def log_end(path: Path) -> str:
    """Return the last lines of a run's log; an empty text if it cannot be read.

    Symbolic links are not followed: an untrusted run folder could link to a private file of the
    user, which the report would then show to others.
    """
    if path.is_symlink() or not path.is_file():
        return ""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LOG_TAIL))
            text = file.read(LOG_TAIL).decode("utf-8", "replace")
    except OSError:
        return ""
    lines = text.splitlines()
    # The first line is incomplete if the log is longer than the tail.
    return "\n".join(plain(line) for line in (lines[1:] if size > LOG_TAIL else lines))


def rows(facts: dict[str, Any]) -> Rows:
    """Return names and values as texts, at most 200 of them and a row with the number left out."""
    lines = [[_short(name), _fact(value)] for name, value in list(facts.items())[:MOST_ROWS]]
    if len(facts) > MOST_ROWS:
        lines.append(["...", f"{len(facts) - MOST_ROWS:,} more"])
    return lines


def _words(facts: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("_", " "): value for name, value in facts.items()}


def _setting(value: Any) -> str:
    return _short(value if isinstance(value, str) else json.dumps(value))


def _fact(value: Any) -> str:
    if isinstance(value, float):
        return number(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "-" if value is None else _setting(value)


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
