"""The command `seqbench`, in this process; the jobs of its sweeps are processes as ever."""

import sys

import pytest

from seqbench.cli.main import main


@pytest.fixture
def seqbench(monkeypatch, capsys, tmp_path):
    """Gives a command in `tmp_path`; its exit code, and lines of its output and of its errors."""
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
