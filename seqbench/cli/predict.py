"""`seqbench predict`: forecast or classify new data with the saved weights of a run."""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from seqbench.cli import completion
from seqbench.cli.eval import Trust, opened
from seqbench.cli.folders import RUN_HELP, OutputDir, writable


def predict(
    run: Annotated[
        str,
        typer.Argument(help=RUN_HELP, autocompletion=completion.runs),
    ],
    file: Annotated[
        str,
        typer.Option(
            "--input",
            "-i",
            metavar="FILE",
            help="A CSV or Parquet file with the run's columns; of sequences also npz or .ts.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write FILE.csv, FILE.parquet or FILE.jsonl; -: CSV to standard output.",
        ),
    ] = Path("-"),
    rolling: Annotated[
        bool,
        typer.Option("--rolling", help="Forecast from every row that has a full look-back."),
    ] = False,
    trust: Trust = None,
    output_dir: OutputDir = Path("outputs"),
) -> None:
    """Forecast the series of a file, or classify its sequences.

    Example: seqbench predict 3f1b --input new.csv -o forecast.csv
    """
    from seqbench.errors import ConfigError
    from seqbench.experiment.classifying import classify, is_classifier
    from seqbench.experiment.forecasting import forecast
    from seqbench.results.prediction_file import prediction_table

    with tempfile.TemporaryDirectory() as folder:
        prints = str(output) == "-"
        target = Path(folder) / "predictions.csv" if prints else writable(output, output)
        with prediction_table(target) as table:
            saved = opened(run, output_dir, trust, None)
            if rolling and is_classifier(saved):
                raise ConfigError("--rolling is for forecasts, and this run classifies sequences")
            found = (
                classify(saved, file)
                if is_classifier(saved)
                else forecast(saved, file, rolling=rolling)
            )
            for columns in found:
                table.append(columns)
        if prints:
            with target.open("rb") as rows:
                sys.stdout.flush()
                shutil.copyfileobj(rows, sys.stdout.buffer)
            sys.stdout.flush()
        else:
            typer.echo(f"{output}: {table.size:,} rows", err=True)
