"""The installed command, as a person would start it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).with_name("seqbench")
Done = subprocess.CompletedProcess[str]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """No network, no datasets, no terminal, and one thread."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SEQBENCH_")}
    return clean | {
        "SEQBENCH_DATA": str(tmp_path / "data"),
        "SEQBENCH_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
    }


@pytest.fixture
def seqbench(tmp_path: Path, environment: dict[str, str]) -> Callable[..., Done]:
    """Runs the command in `tmp_path` and waits for it; keywords go to its environment."""

    def run(*words: str, **variables: str) -> Done:
        return subprocess.run(
            [PROGRAM, *words],
            cwd=tmp_path,
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=200,
        )

    return run


@pytest.fixture
def start(tmp_path: Path, environment: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts the command in `tmp_path`, in a process group of its own, and ends it if the test has
    not.
    """
    started: list[subprocess.Popen] = []

    def popen(*words: str) -> subprocess.Popen:
        started.append(
            subprocess.Popen(
                [PROGRAM, *words],
                cwd=tmp_path,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        return started[-1]

    yield popen
    for process in started:
        process.kill()
        process.communicate()
