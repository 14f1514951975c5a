"""`seqbench generate`: sample text from a language-model run."""

from pathlib import Path
from typing import Annotated

import typer

from seqbench.cli import completion
from seqbench.cli.eval import DataDir, Moved, Trust, opened
from seqbench.cli.folders import RUN_HELP, OutputDir


def generate(
    run: Annotated[
        str,
        typer.Argument(help=RUN_HELP, autocompletion=completion.runs),
    ],
    prompt: Annotated[str, typer.Option(help="The text to go on from.")],
    moved: Moved = None,
    length: Annotated[int, typer.Option(min=1, help="Characters to sample.")] = 200,
    temperature: Annotated[
        float,
        typer.Option(
            min=0, max=1e6, help="Below 1 is safer, above 1 is wilder, 0 takes the likeliest."
        ),
    ] = 0.8,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Another seed gives another text.")
    ] = 0,
    trust: Trust = None,
    data_dir: DataDir = None,
    output_dir: OutputDir = Path("outputs"),
) -> None:
    """Print a prompt and a language model's continuation of it."""
    from seqbench.datasets.text import plain_text

    prompt = plain_text(prompt)
    saved = opened(run, output_dir, trust, data_dir, moved)
    characters = saved.generate(prompt, length, temperature, seed)
    first = next(characters)  # before the prompt is printed, since it may raise
    if unknown := saved.unknown(prompt):
        note = f"note: {unknown} of the prompt's characters did not occur in training"
        typer.echo(note, err=True)
    print(prompt + first, end="", flush=True)
    for character in characters:
        print(character, end="", flush=True)
    print()
