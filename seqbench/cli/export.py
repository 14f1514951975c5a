"""`seqbench export`: write the model of a run as an ONNX file."""

from pathlib import Path
from typing import Annotated

import typer

from seqbench.cli import completion
from seqbench.cli.eval import DataDir, Trust, opened
from seqbench.cli.folders import RUN_HELP, OutputDir, writable
from seqbench.errors import ConfigError
from seqbench.wording import counted, plain


def export(
    run: Annotated[
        str,
        typer.Argument(help=RUN_HELP, autocompletion=completion.runs),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="The ONNX file to write, FILE.onnx."),
    ],
    stateful: Annotated[
        bool,
        typer.Option(
            "--stateful",
            help="Read a chunk of a sequence at a time, with the state as input and output.",
        ),
    ] = False,
    trust: Trust = None,
    data_dir: DataDir = None,
    output_dir: OutputDir = Path("outputs"),
) -> None:
    """Write a run's best weights as an ONNX file.

    The file runs without seqbench and torch. It is kept only if its outputs in onnxruntime agree
    with those of the run.

    Example: seqbench export 3f1b -o model.onnx
    """
    if output.suffix != ".onnx":
        raise ConfigError(f"expected a name that ends with .onnx, got {output}")
    output = writable(output, output)
    from seqbench.export.exporting import export as write

    saved = opened(run, output_dir, trust, data_dir)
    done = write(saved, output, stateful=stateful)
    for port in done.ports:
        columns = f": {', '.join(map(plain, port.columns))}" if port.columns else ""
        typer.echo(f"{port.text}{columns}", err=True)
    if done.state:
        tensors = counted(done.state, "tensor")
        typer.echo(f"and {tensors} of state, as inputs and as outputs", err=True)
    sizes = ", ".join(f"{batch} x {time}" for batch, time in done.sizes)
    typer.echo(
        f"{output}: compared on {done.source}, {sizes} steps: largest difference "
        f"{done.difference:.1e}",
        err=True,
    )
