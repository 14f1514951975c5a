"""`seqbench eval`: score the saved weights of a run."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from seqbench.cli import completion
from seqbench.cli.folders import RUN_HELP, OutputDir
from seqbench.wording import plain

if TYPE_CHECKING:
    from seqbench.experiment.saved_run import SavedRun

Trust = Annotated[
    list[str] | None, typer.Option(help="A package that the run may import, besides seqbench.")
]
DataDir = Annotated[str | None, typer.Option(help="Where the datasets lie.")]
Moved = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[task.path=FILE]", help="Where the run's own text is now, if it has moved."
    ),
]


def evaluate(
    run: Annotated[
        str,
        typer.Argument(help=RUN_HELP, autocompletion=completion.runs),
    ],
    moved: Moved = None,
    split: Annotated[Literal["valid", "test"], typer.Option(help="What to score.")] = "test",
    trust: Trust = None,
    data_dir: DataDir = None,
    output_dir: OutputDir = Path("outputs"),
) -> None:
    """Score a run's best weights again; print one JSON object."""
    import json

    from seqbench.runs.events import finite

    saved = opened(run, output_dir, trust, data_dir, moved)
    scores = {name: finite(value) for name, value in saved.evaluate(split).items()}
    print(json.dumps({"split": split, "step": saved.step, **scores}))


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
        line = f"note: {target} was edited since this run, and is taken as it is now"
        print(plain(line), file=sys.stderr)
    return saved
