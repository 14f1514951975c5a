"""Provide small runs in different states, and run the command in this process."""

import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
import torch
from small_run import Cut, CutAt, small

from seqbench.cli.main import main
from seqbench.config import Config
from seqbench.experiment import run
from seqbench.runs.run import Run


class Done(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Use one thread, since the tensors are small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> Config:
    """Return the config of the completed small run."""
    config = small(tmp_path_factory.mktemp("undisturbed"))
    assert run(config).status == "completed"
    return config


@pytest.fixture(scope="session")
def cut_off(tmp_path_factory) -> Config:
    """Kill the small run at step 18; checkpoints of steps 15 and 10 are left.

    It is shared: tests continue copies of it.
    """
    config = small(tmp_path_factory.mktemp("cut_off"))
    with pytest.raises(Cut):
        run(config, CutAt(18))
    kept = sorted(path.name for path in Run.of(config).checkpoints.iterdir())
    assert kept == ["best.safetensors", "last.safetensors", "previous.safetensors"]
    return config


@pytest.fixture
def copied(tmp_path) -> Callable[[Config], Config]:
    """Return a function that copies a run to another output folder and returns its config there."""

    def copy_of(config: Config) -> Config:
        shutil.copytree(config["output_dir"], tmp_path / "copy")
        return config | {"output_dir": str(tmp_path / "copy")}

    return copy_of


@pytest.fixture
def seqbench(monkeypatch, capsys, tmp_path) -> Callable[..., Done]:
    """Return a function that runs a command in this process, in `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("SEQBENCH_TRACEBACK", raising=False)
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)

    def command(*words: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["seqbench", *map(str, words)])
        code = 0
        capsys.readouterr()
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        return Done(code, *capsys.readouterr())

    return command


SECRET = "what only the environment knows"


@pytest.fixture
def sent(undisturbed, copied, tmp_path, monkeypatch):
    """Return the folder of a finished run as sent from elsewhere; its code would touch `marker`."""
    monkeypatch.setenv("SECRET", SECRET)
    monkeypatch.setenv("MARKER", str(tmp_path / "marker"))
    return Run.of(copied(undisturbed)).folder


@pytest.fixture
def unfinished(sent):
    """Return the same without its record."""
    (sent / "record.json").unlink()
    return sent


@pytest.fixture
def harmless(seqbench, tmp_path):
    """Run a command that must do no harm, and return its result."""

    def command(*words):
        done = seqbench(*words)
        assert not (tmp_path / "marker").exists(), "code of the folder's was run"
        for text in (done.out, done.err):
            bad = {c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs")}
            assert not bad, f"{words[0]} wrote {bad}"
            assert SECRET not in text
            assert "Traceback" not in text
        assert len(done.out) < 1_000_000
        assert len(done.err) < 10_000
        if done.code:
            assert done.code in (1, 2, 3)
            assert done.out == ""
            last = done.err.splitlines()[-1]
            assert last.startswith("error: ")
        return done

    return command


@pytest.fixture
def refused(harmless):
    """Run a command that must be refused, and return the one line that says so."""

    def command(*words):
        done = harmless(*words)
        assert done.code, f"{words} was done"
        assert done.err.count("\n") == 1
        return done.err

    return command
