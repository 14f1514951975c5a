"""`seqbench show`: print the settings, scores, files and learning curves of a run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seqbench.cli import completion
from seqbench.cli.folders import RUN_HELP, OutputDir
from seqbench.runs.record import WITHOUT_MEMORY, Record

if TYPE_CHECKING:
    from seqbench.results.collect import Unfinished
    from seqbench.results.curves import Curve

# Number of lines to print from the end of the log of a failed run.
LOG_LINES = 15


def show(
    run: Annotated[
        str,
        typer.Argument(
            help=RUN_HELP,
            autocompletion=completion.runs,
        ),
    ],
    path: Annotated[
        Path | None, typer.Argument(help="Folder to search for the run, as for `table`.")
    ] = None,
    output_dir: OutputDir = Path("outputs"),
) -> None:
    """Show a run: scores, settings, versions, files and curves.

    The score is followed by the score without memory, the best possible score and the published
    scores. A task with classes has the confusion matrix of its test.

    Example: seqbench show 3f1b
    """
    from rich.console import Console

    from seqbench.cli.confusion_view import print_confusion
    from seqbench.cli.rich_tables import print_sections
    from seqbench.cli.text_plot import print_curves
    from seqbench.results.collect import read_run
    from seqbench.results.summary import log_end
    from seqbench.runs.confusion import read_confusion
    from seqbench.runs.find import find_run

    folder = find_run(run, path or output_dir)
    found = read_run(folder)
    sections = sections_of(found, folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sections[f"files in {folder}"] = {
        str(path.relative_to(folder)): f"{path.stat().st_size:,} bytes" for path in files
    }
    if found.status == "failed" and (end := log_end(folder / "log.txt")):
        sections[f"end of {folder / 'log.txt'}"] = {"": "\n".join(end.splitlines()[-LOG_LINES:])}
    console = Console(highlight=False)
    print_sections(console, sections)
    if (confusion := read_confusion(folder / "confusion.json")) is not None:
        print_confusion(console, confusion)
    for (split, metric), curve in learning_curves(found, folder).items():
        print_curves(console, split, metric, {"": curve}, baselines(found, metric))


def sections_of(run: "Record | Unfinished", folder: Path) -> dict[str, dict[str, str]]:
    """Return the sections to print for a run: section title -> row name -> text."""
    from seqbench.cli.running import figures
    from seqbench.launch.progress import Progress
    from seqbench.results.summary import record_sections, unfinished_sections
    from seqbench.runs.run import Run

    if isinstance(run, Record):
        return record_sections(run, folder)
    return unfinished_sections(run, figures(Progress(Run(folder)).look()))


def learning_curves(run: "Record | Unfinished", folder: Path) -> dict[tuple[str, str], "Curve"]:
    """Return the curves of the score (valid, test) and of the training loss by (split, metric)."""
    from seqbench.launch.progress import Progress
    from seqbench.results.curves import read_curves
    from seqbench.runs.run import Run

    score = getattr(run, "score", None)
    metric = score.metric if score else Progress(Run(folder)).look().metric
    curves = read_curves(folder)
    shown = (("valid", metric), ("test", metric), ("train", "loss"))
    return {key: curves[key] for key in curves if key in shown}


def baselines(run: "Record | Unfinished", metric: str) -> list[tuple[float, str]]:
    """Return a list with the value and the name of the baseline; empty if it is unknown."""
    if not isinstance(run, Record) or (baseline := run.baseline_of(metric)) is None:
        return []
    scored = run.score is not None and run.score.metric == metric
    return [(baseline, run.baseline_name if scored else WITHOUT_MEMORY)]
