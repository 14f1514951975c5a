"""`seqbench show`: print everything that is recorded of a run."""

import json
import shlex
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seqbench.cli import completion
from seqbench.errors import ConfigError
from seqbench.runs.record import Record
from seqbench.wording import amount, duration, number, plain, score, task_with_size

if TYPE_CHECKING:
    from seqbench.results.collect import Unfinished
    from seqbench.results.curves import Curve

Section = dict[str, str]

# Lines shown of the log of a failed run.
LOG_LINES = 15


def show(
    run: Annotated[
        str,
        typer.Argument(
            help="A run id, the beginning of one, or a path.", autocompletion=completion.runs
        ),
    ],
    output_dir: Annotated[Path, typer.Option(help="Where runs are.")] = Path("outputs"),
) -> None:
    """Show a run: scores, settings, versions, files and curves.

    The score is shown beside the task's bounds and the published scores.

    Example: seqbench show 3f1b
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from seqbench.cli.text_plot import print_curves
    from seqbench.results.collect import find_run

    folder = find_run(run, output_dir)
    found = read_run(folder)
    sections = of_record(found, folder) if isinstance(found, Record) else of_unfinished(found)
    sections |= {f"files in {folder}": sizes(folder)}
    if found.status == "failed" and (end := end_of_log(folder)):
        sections[f"end of {folder / 'log.txt'}"] = {"": end}
    console = Console(highlight=False)
    for title, rows in sections.items():
        if not rows:
            continue
        if title:
            console.print(Text(f"\n{plain(title)}", style="bold"))
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", overflow="fold")
        grid.add_column(overflow="fold")
        for name, value in rows.items():
            grid.add_row(Text(plain(name)), Text("\n".join(map(plain, value.split("\n")))))
        console.print(grid)
    for (split, metric), curve in learning_curves(found, folder).items():
        print_curves(console, split, metric, {"": curve}, baselines(found, metric))


def read_run(folder: Path) -> "Record | Unfinished":
    """Read the record of the run in a folder, or its files if it has no record.

    Raises:
        RecordError: if there is a record that cannot be read.
    """
    from seqbench.runs.record import read_record

    path = folder / "record.json"
    return read_record(path) if path.exists() else read_open(folder)


def read_open(folder: Path) -> "Unfinished":
    """Read a run without a record; its status is `running` if a process is training it now."""
    from seqbench.results.collect import read_unfinished
    from seqbench.runs import lock

    run = read_unfinished(folder)
    with suppress(OSError):  # no permission to read the lease
        if lock.is_held(folder):
            return replace(run, status="running")
    return run


def learning_curves(run: "Record | Unfinished", folder: Path) -> dict[tuple[str, str], "Curve"]:
    """Return the curves of score (valid, test) and training loss, by split and metric."""
    from seqbench.launch.progress import Progress
    from seqbench.results.curves import read_curves
    from seqbench.runs.run import Run

    found = getattr(run, "score", None)
    metric = found.metric if found else Progress(Run(folder, run.run_id)).look().metric
    curves = read_curves(folder)
    shown = (("valid", metric), ("test", metric), ("train", "loss"))
    return {key: curves[key] for key in curves if key in shown}


def baselines(run: "Record | Unfinished", metric: str) -> list[float]:
    """Return the score of a predictor without memory on the run's task; empty if unknown."""
    known = run.baseline_of(metric) if isinstance(run, Record) else None
    return [] if known is None else [known]


def of_record(record: Record, folder: Path) -> dict[str, Section]:
    """Return the sections to show for a run with a record, by title."""
    from seqbench.results.command import command
    from seqbench.runs.code_hash import source_hash

    measured = dict(record.measured)
    pace = measured.pop("throughput", None)
    code = record.source + ("" if record.source == source_hash() else " (older code)")
    status = record.error or record.status
    if not status.startswith(record.status):
        status = f"{record.status}: {status}"
    retry: Section = {}
    if record.status == "failed":
        with suppress(ConfigError):  # no command line reproduces this config
            retry["to retry"] = f"{command(record.config)}{elsewhere(folder)} --retry"
    return {
        "": {
            "run": record.run_id,
            "status": status,
            **retry,
            "task": task_with_size(record.task, record.length),
            "model": f"{record.model}, {whole(record.parameters)} parameters",
            "seed": str(record.seed),
            "budget": record.budget or "-",
            "protocol": record.protocol or "-",
        },
        "score": scores(record),
        "metrics": metrics(record),
        "training": {
            "steps": whole(record.steps),
            "time steps read": whole(record.tokens),
            "time": duration(measured.pop("seconds", None)),
            "time steps/s": number(pace) if isinstance(pace, int | float) else "-",
            **{name.replace("_", " "): text(value) for name, value in measured.items()},
        },
        "facts": {name.replace("_", " "): text(value) for name, value in record.notes.items()},
        "versions": record.versions | {"source": code},
        "data (SHA-256)": record.data,
        "configuration": settings(record.config),
    }


def of_unfinished(run: "Unfinished") -> dict[str, Section]:
    """Return the sections to show for a run without a record, by title."""
    from seqbench.cli.running import figures
    from seqbench.launch.progress import Progress
    from seqbench.runs.run import Run

    seen = figures(Progress(Run(run.folder, run.run_id)).look())
    named = shlex.quote(str(run.folder)) if elsewhere(run.folder) else run.run_id[:8]
    going_on = f"seqbench train --resume {named}"
    return {
        "": {
            "run": run.run_id,
            "status": f"{run.status}, last event {run.touched}",
            **({"to go on": going_on} if run.status == "unfinished" else {}),
            "task": run.task,
            "model": run.model,
            "last step": seen["step"],
            **{name: seen[name] for name in ("loss", "valid") if seen[name]},
        },
        "configuration": settings(run.config),
    }


def scores(record: Record) -> Section:
    """Return the score, its bounds, and the scores that papers report for this model and task."""
    from seqbench.results.papers import like_for_like, papers, published

    rows: Section = {}
    metric = record.score.metric if record.score else None
    if record.score:
        better = "lower" if record.score.direction == "min" else "higher"
        reached = score(record.score.metric, record.score.value)
        rows["reached"] = f"{reached} on {record.score.split} ({better} is better)"
    rows["without memory"] = number(record.baseline, metric)
    if record.optimum is not None:
        rows["best possible"] = number(record.optimum, metric)
    for paper in papers():
        cell = published(paper, record.task, record.model)
        if cell:
            reason = like_for_like(record, cell)
            verdict = f"not like for like: {reason}" if reason else "like for like"
            caveats = [f"- {caveat}" for caveat in cell.caveats]
            rows[paper] = "\n".join([f"{cell.printed} {cell.unit}".strip(), verdict, *caveats])
    return rows


def metrics(record: Record) -> Section:
    """Return all metrics of a run as text, accuracies in per cent."""
    return {
        f"{split} {name}": amount(name, value)
        for split, values in record.metrics.items()
        for name, value in values.items()
    }


def settings(config: dict[str, object]) -> Section:
    """Flatten a config to dotted keys, as the command line takes them, with values as text."""
    from seqbench.results.where import flatten

    # Choices show in the values that they set, and `_partial_` is a detail of Hydra.
    return {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in flatten(config).items()
        if not key.startswith("choices.") and not key.endswith("._partial_")
    }


def elsewhere(folder: Path) -> str:
    """Return the ` output_dir=...` that a command needs for a run's folder; empty for `outputs`."""
    outputs = folder.parents[min(3, len(folder.parents) - 1)]
    return "" if outputs == Path("outputs") else f" output_dir={shlex.quote(str(outputs))}"


def end_of_log(folder: Path) -> str:
    """Return the last LOG_LINES lines of a run's log."""
    from seqbench.results.report.run_page import log_end

    return "\n".join(log_end(folder / "log.txt").splitlines()[-LOG_LINES:])


def sizes(folder: Path) -> Section:
    """Return the files in a run's folder, with their sizes."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): f"{path.stat().st_size:,} bytes" for path in found}


def whole(value: int | None) -> str:
    """Format a count with thousands separators, `-` for `None`."""
    return "-" if value is None else f"{value:,}"


def text(value: object) -> str:
    """Format a recorded fact: a list, a number or anything else."""
    if isinstance(value, list):
        return ", ".join(map(text, value)) or "none"
    if isinstance(value, float):
        return number(value)
    return whole(value) if isinstance(value, int) else str(value)
