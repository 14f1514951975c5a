"""`seqbench compare`: show how runs differ."""

import string
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seqbench.cli import completion
from seqbench.cli.folders import RUN_HELP, OutputDir
from seqbench.cli.show import baselines, learning_curves
from seqbench.errors import ConfigError
from seqbench.runs.identity import without_environment
from seqbench.runs.record import Record
from seqbench.wording import count, duration, number, plain

if TYPE_CHECKING:
    from seqbench.results.collect import Unfinished
    from seqbench.results.curves import Curve

Facts = dict[str, str]


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN RUN...",
            help=RUN_HELP,
            autocompletion=completion.runs,
        ),
    ],
    output_dir: OutputDir = Path("outputs"),
) -> None:
    """Compare runs: settings that differ, metrics, speed and curves.

    Example: seqbench compare 3f1b 88a0
    """
    from rich.console import Console
    from rich.text import Text

    from seqbench.cli.rich_tables import columns_table
    from seqbench.cli.text_plot import print_curves
    from seqbench.results.collect import read_run
    from seqbench.runs.find import find_run

    markers = string.ascii_lowercase
    if not 2 <= len(runs) <= len(markers):
        raise ConfigError(f"compare takes 2 to {len(markers)} runs, not {len(runs)}")
    folders = [find_run(run, output_dir) for run in runs]
    found = [read_run(folder) for folder in folders]
    console = Console(highlight=False)
    settings = side_by_side([facts(run) for run in found])
    settings = {name: values for name, values in settings.items() if len(set(values)) > 1}
    if not settings:
        console.print("no setting differs")
    groups = [settings, *(side_by_side([of(run) for run in found]) for of in (metrics_of, speed))]
    rows: list[list[str | Text]] = []
    for group in filter(None, groups):
        rows += [[]] if rows else []
        rows += [[Text(plain(name), "dim"), *values] for name, values in group.items()]
    header = [f"{marker}  {run.run_id}" for marker, run in zip(markers, found, strict=False)]
    console.print(columns_table(["", *header], rows))
    curves: dict[tuple[str, str], dict[str, Curve]] = {}
    bounds: dict[tuple[str, str], set[tuple[float, str]]] = {}
    for marker, run, folder in zip(markers, found, folders, strict=False):
        for key, curve in learning_curves(run, folder).items():
            curves.setdefault(key, {})[marker] = curve
            bounds.setdefault(key, set()).update(baselines(run, key[1]))
    for (split, metric), of_runs in curves.items():
        print_curves(console, split, metric, of_runs, sorted(bounds[split, metric]))


def side_by_side(runs: list[Facts]) -> dict[str, list[str]]:
    """Return name -> the value of each run, `-` where a run has none."""
    names = dict.fromkeys(name for run in runs for name in run)
    return {name: [run.get(name, "-") for run in runs] for name in names}


def facts(run: "Record | Unfinished") -> Facts:
    """Return the settings, versions and hashes of a run, without where and when it ran."""
    from seqbench.results.summary import settings

    # Records leave out place, tracker and recipe; configs of unfinished runs hold them.
    config = without_environment(run.config)
    settled = {"status": run.status, "task": run.task, "model": run.model} | settings(config)
    if isinstance(run, Record):
        settled |= {"steps taken": count(run.steps)}
        settled |= {f"{name} version": version for name, version in run.versions.items()}
        settled |= {f"data {name}": digest[:12] for name, digest in run.data.items()}
        settled |= {"source": run.source}
        settled |= {f"{node} code": digest[:12] for node, digest in run.code.items()}
    return settled


def metrics_of(run: "Record | Unfinished") -> Facts:
    """Return the metrics of a run; empty if the run has no record."""
    from seqbench.results.summary import metrics

    return metrics(run) if isinstance(run, Record) else {}


def speed(run: "Record | Unfinished") -> Facts:
    """Return speed, device, size and memory of a run; empty if the run has no record."""
    from seqbench.results.summary import fact_text

    if not isinstance(run, Record):
        return {}
    measured = run.measured
    seconds, peak = measured.get("seconds"), measured.get("peak_memory_bytes")
    pace = None
    if run.steps is not None and isinstance(seconds, int | float) and seconds > 0:
        pace = run.steps / seconds
    return {
        "steps/s": number(pace),
        "training time": duration(seconds),
        "device": fact_text(measured.get("device", "-")),
        "threads": fact_text(measured.get("threads", "-")),
        "compiled": fact_text(measured.get("compiled", "-")),
        "parameters": count(run.parameters),
        "peak memory": f"{peak / 2**20:,.0f} MiB" if isinstance(peak, int) else "-",
    }
