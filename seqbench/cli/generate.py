"""`seqbench generate`: sample text from a language-model run."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from seqbench.cli import completion
from seqbench.cli.eval import DataDir, Trust, opened
from seqbench.cli.folders import RUN_HELP, OutputDir
from seqbench.errors import ConfigError

Moved = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[task.path=FILE]", help="Where the run's own text is now, if it has moved."
    ),
]


def generate(
    run: Annotated[
        str,
        typer.Argument(help=RUN_HELP, autocompletion=completion.runs),
    ],
    moved: Moved = None,
    prompt: Annotated[str | None, typer.Option(help="Text to continue.")] = None,
    prompt_file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="UTF-8 file with the text to continue; -: standard input."
        ),
    ] = None,
    length: Annotated[
        int, typer.Option(min=1, help="Characters, words or subwords to sample.")
    ] = 200,
    temperature: Annotated[
        float,
        typer.Option(
            min=0, max=1e6, help="Sampling temperature: lower is less random, 0 is greedy."
        ),
    ] = 0.8,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Sample from the K most probable tokens only.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the sampling.")] = 0,
    trust: Trust = None,
    data_dir: DataDir = None,
    output_dir: OutputDir = Path("outputs"),
) -> None:
    """Print a prompt and a language model's continuation of it."""
    text = prompt_text(prompt, prompt_file)
    saved = opened(run, output_dir, trust, data_dir, moved)
    pieces = saved.generate(text, length, temperature, seed, top_k)
    first = next(pieces)  # before the prompt is printed, since it may raise
    if unknown := saved.unknown(text):
        unit = saved.vocabulary.unit
        typer.echo(f"note: {unknown} of the prompt's {unit} are unknown to the model", err=True)
    print(text + first, end="", flush=True)
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


def prompt_text(prompt: str | None, file: str | None) -> str:
    """Return the text of a prompt, without a byte order mark and with newlines as line ends.

    Raises:
        ConfigError: if not exactly one of text and file is given.
        DataError: if the file cannot be read, is empty or is not UTF-8 text.
    """
    from seqbench.datasets.text_file import decoded, plain_text, read_bytes

    if prompt is not None and file is None:
        return plain_text(prompt)
    if prompt is not None or file is None:
        given = "both" if file is not None else "none"
        raise ConfigError(f"expected --prompt TEXT or --prompt-file FILE, got {given}")
    if file == "-":
        return decoded(sys.stdin.buffer.read(), "the prompt")
    return decoded(read_bytes(file), file)
