"""Test what importing seqbench sets up."""

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import seqbench
from seqbench.cli.main import app

CODE = "import os, seqbench; print(os.environ.get('GOMP_SPINCOUNT'))"


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, "10000"),
        ({"GOMP_SPINCOUNT": "5"}, "5"),
        ({"OMP_WAIT_POLICY": "active"}, "None"),
    ],
)
def test_threads_do_not_wait_long_unless_somebody_asks(asked, found):
    clean = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=clean | asked, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == found


def test_the_command_says_its_version():
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.stdout) == (0, f"seqbench {seqbench.__version__}\n")
