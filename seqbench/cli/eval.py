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
            metavar="task.KEY=VALUE",
            help="Other values of the task, such as another length or text.",
        ),
    ] = None,
    split: Annotated[Literal["valid", "test"], typer.Option(help="What to score.")] = "test",
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

    With task.KEY=VALUE the weights are scored on other data. The result is kept in the run's
    folder, beside its own test score, and `seqbench show` lists it.

    Example: seqbench eval 3f1b task.length=1000
    """
    import json

    from seqbench.experiment.other_data import evaluate_on
    from seqbench.results.prediction_file import prediction_table
    from seqbench.runs.events import finite

    with ExitStack() as stack:
        write = None
        if predictions is not None:
            predictions = writable(predictions, predictions)
            write = stack.enter_context(prediction_table(predictions)).append
        saved = opened(run, output_dir, trust, data_dir)
        if overrides:
            evaluation = evaluate_on(saved, overrides, split, write)
            scores = evaluation.metrics
            keep(evaluation, saved.run.evaluations_path)
        else:
            scores = {k: finite(v) for k, v in saved.evaluate(split, write=write).items()}
            with suppress(OSError):  # a folder that is only read
                saved.keep_forecasts()
    print(json.dumps({"split": split, "step": saved.step, **scores}))


def keep(evaluation: "Evaluation", path: Path) -> None:
    """Record an evaluation on other data, and note on stderr what a user should know of it."""
    from seqbench.runs.evaluations import append_evaluation

    if not evaluation.overrides:
        return  # the run's own data
    if evaluation.unknown:
        part = f"the {evaluation.split} text's {evaluation.unit}"
        note(f"{evaluation.unknown:,} of {part} are unknown to the model")
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
    from seqbench.results.collect import find_run

    saved = SavedRun(find_run(run, output_dir), trust or (), data_dir, moved or ())
    for target in saved.edited:
        note(f"{target} was edited since this run, and is taken as it is now")
    return saved
