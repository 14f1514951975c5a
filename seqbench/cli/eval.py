"""`seqbench eval`: score the saved weights of a run."""

import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from seqbench.cli import completion
from seqbench.cli.folders import RUN_HELP, OutputDir, writable
from seqbench.wording import plain

if TYPE_CHECKING:
    from seqbench.experiment.saved_run import SavedRun
    from seqbench.runs.evaluations import Evaluation

Trust = Annotated[
    list[str] | None, typer.Option(help="A package that the run may import, besides seqbench.")
]
DataDir = Annotated[str | None, typer.Option(help="Where the datasets lie.")]


def evaluate(
    run: Annotated[
        str,
        typer.Argument(help=RUN_HELP, autocompletion=completion.runs),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Other values of the task, such as task.length=1000 or task.path=other.txt; "
            "for transformer_xl also model.eval_memory.",
        ),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            "--input",
            "-i",
            metavar="FILE",
            help="Score all of another file, with the run's scaler, columns and classes.",
        ),
    ] = None,
    split: Annotated[
        Literal["valid", "test"] | None, typer.Option(help="What to score: test by default.")
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write each prediction to FILE.csv, FILE.parquet or FILE.jsonl.",
        ),
    ] = None,
    trust: Trust = None,
    data_dir: DataDir = None,
    output_dir: OutputDir = Path("outputs"),
) -> None:
    """Score a run's best weights again; print one JSON object.

    With task.KEY=VALUE or --input the weights are scored on other data, with model.eval_memory=N
    with a memory of another length. The result is kept in the run's folder, beside its own test
    score, and `seqbench show` lists it.

    Example: seqbench eval 3f1b task.length=1000

    Example: seqbench eval 3f1b --input new.csv
    """
    import json

    from seqbench.errors import ConfigError
    from seqbench.experiment.other_data import evaluate_file, evaluate_on
    from seqbench.results.prediction_file import prediction_table
    from seqbench.runs.events import finite

    if file is not None and (overrides or split):
        other = overrides[0] if overrides else f"--split {split}"
        raise ConfigError(f"--input scores all of a file, so it takes no {plain(other)}")
    split = split or "test"
    with ExitStack() as stack:
        table = None
        if predictions is not None:
            predictions = writable(predictions, predictions)
            table = stack.enter_context(prediction_table(predictions))
        write = table.append if table else None
        saved = opened(run, output_dir, trust, data_dir)
        if overrides or file is not None:
            evaluation = (
                evaluate_on(saved, overrides or [], split, write)
                if file is None
                else evaluate_file(saved, file, write)
            )
            scores = evaluation.metrics
            keep(evaluation, saved.run.evaluations_path)
        else:
            scores = {k: finite(v) for k, v in saved.evaluate(split, write=write).items()}
            with suppress(OSError):  # a folder that is only read
                saved.keep_forecasts()
    if table:
        typer.echo(f"{predictions}: {table.size:,} rows", err=True)
    print(json.dumps({"split": split, "step": saved.step, **scores}))


def keep(evaluation: "Evaluation", path: Path) -> None:
    """Record an evaluation with other values, and note on stderr what a user should know of it."""
    from seqbench.runs.evaluations import append_evaluation

    if not evaluation.overrides:
        return  # the run's own values
    if evaluation.unknown:
        part = f"the {evaluation.split} text's {evaluation.unit}"
        note(f"{evaluation.unknown:,} of {part} are unknown to the model")
    if short := evaluation.notes.get("short_series"):
        note(f"{short:,} series are shorter than a window, and are not scored")
    try:
        append_evaluation(path, evaluation)
    except OSError as error:
        note(f"the result is not recorded: {error.strerror or error}: {path}")


def note(line: str) -> None:
    """Print a note to stderr."""
    print(plain(f"note: {line}"), file=sys.stderr)


def opened(
    run: str,
    output_dir: Path,
    trust: list[str] | None,
    data_dir: str | None,
    moved: list[str] | None = None,
) -> "SavedRun":
    """Load a run's best weights; note on stderr which of the user's code was edited since."""
    from seqbench.experiment.saved_run import SavedRun
    from seqbench.runs.find import find_run

    saved = SavedRun(find_run(run, output_dir), trust or (), data_dir, moved or ())
    for target in saved.edited:
        note(f"{target} was edited since this run, and is taken as it is now")
    return saved
