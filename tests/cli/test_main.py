from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from seqbench.cli.main import app


def commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield words
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*words, name))


@pytest.mark.parametrize("words", list(commands(typer.main.get_command(app))), ids=" ".join)
def test_the_help_fits_a_terminal_of_80_columns(words):
    text = CliRunner().invoke(app, [*words, "--help"]).stdout
    assert not [line for line in text.splitlines() if len(line) > 80]
    # In a terminal of 80 columns, summaries are cut after 76; the test runner cuts them after 78.
    summaries = text.partition("Commands:")[2].splitlines()
    assert not [line for line in summaries if line.endswith("...") or len(line) > 76]
