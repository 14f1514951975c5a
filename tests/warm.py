"""Load what commands load late; the fork server of the tests imports this module."""

import duckdb  # noqa: F401
import matplotlib.figure  # noqa: F401
from typer.testing import CliRunner

import seqbench.cli.progress  # noqa: F401
from seqbench.cli.main import app
from seqbench.config.precedence import baseline

for words in (["list", "models"], ["config", "show", "seed=1"], ["train", "--help"]):
    assert CliRunner().invoke(app, words).exit_code == 0
baseline()
