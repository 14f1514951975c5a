"""Run the seqbench command as a user starts it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import Command

PROGRAM = Path(sys.executable).with_name("seqbench")
Done = subprocess.CompletedProcess[str]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return variables for a command without network, datasets and terminal, with one thread."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SEQBENCH_")}
    return clean | {
        "SEQBENCH_DATA": str(tmp_path / "data"),
        "SEQBENCH_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
    }


@pytest.fixture
def start(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]
) -> Iterator[Callable[..., Command]]:
    """Start the command in `tmp_path`; keywords go to its environment. Kill it after the test."""
    started: list[Command] = []

    def begin(*words: str, **variables: str) -> Command:
        said = tmp_path_factory.mktemp("said")
        started.append(Command(words, tmp_path, environment | variables, said))
        return started[-1]

    yield begin
    for command in started:
        command.process.kill()
        command.process.join()


@pytest.fixture
def seqbench(start: Callable[..., Command]) -> Callable[..., Done]:
    """Run the command in `tmp_path` and wait for its end; keywords go to its environment."""
    return lambda *words, **variables: start(*words, **variables).wait()


@pytest.fixture
def installed(tmp_path: Path, environment: dict[str, str]) -> Callable[..., Done]:
    """Run the installed command in a new process; keywords go to its environment."""

    def run(*words: str, **variables: str) -> Done:
        return subprocess.run(
            [PROGRAM, *words],
            cwd=tmp_path,
            env=environment | variables,
            capture_output=True,
            text=True,
        )

    return run
