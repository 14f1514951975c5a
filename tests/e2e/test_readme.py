"""The README's commands do what it says, in its order; trainings at smoke size."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
# Needs a network, or is what this test stands in.
ELSEWHERE = ("make", "pip")
CLUSTERS = {"launch=slurm", "launch=ray"}


def blocks(language: str, file: Path = README) -> list[str]:
    found = BLOCK.findall(file.read_text(encoding="utf-8"))
    return [text for kind, text in found if kind == language]


def commands(file: Path = README) -> list[list[str]]:
    lines = [line for block in blocks("bash", file) for line in block.splitlines() if line.strip()]
    return [shlex.split(line, comments=True) for line in lines]


def small(command: list[str]) -> list[str]:
    """Return the same command at smoke size."""
    if command[1] == "bench":
        return [*command, "--rounds", "1", "--steps", "1"]
    if command[1] not in ("train", "sweep") or "--resume" in command:
        return command
    kept = [word for word in command if not word.startswith(("budget=", "trainer.steps="))]
    kept = ["search.trials=2" if word.startswith("search.trials") else word for word in kept]
    return [*kept, "budget=smoke", "threads=1"]


@pytest.mark.timeout(900)  # some forty processes, each of which imports torch
def test_every_command_of_the_readme_works(tmp_path: Path, real_data: Path) -> None:
    files = [
        text for kind in ("python", "yaml") for text in blocks(kind) if text.startswith("# my_")
    ]
    assert len(files) == 2
    for text in files:
        path = tmp_path / text.split("\n", 1)[0].removeprefix("# ")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (tmp_path / "my.txt").write_text("The cat sat on the mat, and the dog on the log.\n" * 500)
    environment = {**os.environ, "SEQBENCH_DATA": str(real_data), "SEQBENCH_OFFLINE": "1"}
    program = str(Path(sys.executable).with_name("seqbench"))
    tried = 0
    for command in commands():
        if command[0] in ELSEWHERE or CLUSTERS & set(command):
            continue
        assert command[0] == "seqbench", command
        newest = max((tmp_path / "outputs/runs").glob("*/*/*"), key=os.path.getmtime, default=None)
        words = [
            newest.name if newest and (word == "RUN" or re.fullmatch("[0-9a-f]{8}", word)) else word
            for word in small(command)
        ]
        done = subprocess.run(
            [program, *words[1:]], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stderr}"
        tried += 1
    assert tried > 15


def test_the_readmes_python_works(tmp_path: Path) -> None:
    (program,) = [text for text in blocks("python") if "experiment" in text]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "mse" in done.stdout


def test_the_korean_readme_gives_no_command_that_the_other_does_not() -> None:
    korean = commands(README.with_name("README.ko.md"))
    assert len(korean) > 8
    known = commands()
    assert [command for command in korean if command not in known] == []


def test_the_tables_of_the_readme_are_those_of_the_kept_runs() -> None:
    text = README.read_text(encoding="utf-8")
    tables = re.findall(r"<!-- seqbench (table .*?) -->\n(.*?)\n<!-- end", text, re.DOTALL)
    assert len(tables) == 2
    program = str(Path(sys.executable).with_name("seqbench"))
    for words, shown in tables:
        done = subprocess.run(
            [program, *words.split()],
            cwd=README.parent,
            capture_output=True,
            text=True,
            check=True,
        )
        assert shown == done.stdout.strip()
