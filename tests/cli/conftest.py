"""Run the command `seqbench` in this process; jobs of sweeps are processes of their own."""

import sys

import pytest

from seqbench.cli.main import main


@pytest.fixture
def seqbench(monkeypatch, capsys, tmp_path):
    """Return a function that runs a command in `tmp_path`: exit code, lines of both outputs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def command(*words):
        monkeypatch.setattr(sys, "argv", ["seqbench", *words])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    return command
