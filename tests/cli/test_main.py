from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from seqbench.cli.main import app


def groups(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if hasattr(command, "commands"):
        yield words
        for name, inner in command.commands.items():
            yield from groups(inner, (*words, name))


@pytest.mark.parametrize("words", list(groups(typer.main.get_command(app))), ids=" ".join)
def test_no_summary_is_cut_in_a_terminal_of_80_columns(words):
    text = CliRunner().invoke(app, [*words, "--help"]).stdout
    summaries = text.partition("Commands:")[2].splitlines()
    assert len(summaries) > 1
    # In a terminal of 80 columns, lines are cut after 76; the test runner cuts them after 78.
    assert not [line for line in summaries if line.endswith("...") or len(line) > 76]
