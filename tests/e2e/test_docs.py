"""README and docs: commands work in the order of their page, links lead to files."""

import csv
import os
import re
import runpy
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from seqbench.config.compose import compose
from seqbench.runs.identity import run_id

ROOT = Path(__file__).parents[2]
README, KOREAN = ROOT / "README.md", ROOT / "README.ko.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]
TEXTS = [*PAGES, KOREAN, ROOT / "CHANGELOG.md", ROOT / "seqbench" / "kernels" / "README.md"]
BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
TABLE = re.compile(r"<!-- seqbench (table .*?) -->\n(.*?)\n<!-- end", re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
# These need a network or the checkout.
SKIPPED = {"make", "pip", "git", "cp", "python", "python3", "cd"}
HAS_ONNX = find_spec("onnxruntime") is not None
CLUSTERS = {"launch=slurm", "launch=ray"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(language: str, page: Path) -> list[str]:
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [text for kind, text in found if kind == language]


def commands(page: Path) -> list[list[str]]:
    text = "\n".join(blocks("bash", page)).replace("\\\n", " ")
    words = [shlex.split(line, comments=True) for line in text.splitlines()]
    return [line for line in words if line and line[0] not in SKIPPED and "=" not in line[0]]


def small(command: list[str]) -> list[str]:
    """Return the same command at smoke size."""
    if command[1] == "bench":
        return [*command, "--rounds", "1", "--steps", "1"]
    if command[1] not in ("train", "sweep"):
        return command
    if "--resume" in command:  # of a run of 20 steps
        return [re.sub(r"trainer\.steps=\d+", "trainer.steps=30", word) for word in command]
    kept = [word for word in command if not word.startswith(("budget=", "trainer.steps="))]
    kept = ["search.trials=2" if word.startswith("search.trials") else word for word in kept]
    return [*kept, "budget=smoke", "threads=1"]


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=name_of)
def test_every_command_of_a_page_works(page, tmp_path, seqbench, real_data, monkeypatch) -> None:
    for text in [*blocks("python", page), *blocks("yaml", page)]:
        if found := re.match(r"# (\S+\.(?:py|yaml))\n", text):
            path = tmp_path / found[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            if path.name.startswith("make_"):
                monkeypatch.chdir(tmp_path)
                runpy.run_path(str(path))
    for name, text in (
        ("my.txt", "The cat sat on the mat, and the dog on the log.\n"),
        ("other.txt", "A dog! "),
    ):
        (tmp_path / name).write_text(text * 500)
    for command in commands(page):
        assert command[0] == "seqbench", command
        if CLUSTERS & set(command) or (command[1] == "export" and not HAS_ONNX):
            continue
        newest = max((tmp_path / "outputs/runs").glob("*/*/*"), key=os.path.getmtime, default=None)
        words = small(command)
        if newest:
            words = [
                re.sub(r"^(init_from=)?(RUN|[0-9a-f]{8})$", rf"\g<1>{newest.name}", w)
                for w in words
            ]
        done = seqbench(*words[1:], SEQBENCH_DATA=str(real_data))
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stderr}"
    if HAS_ONNX and (program := tmp_path / "forecast_onnx.py").exists():
        monkeypatch.chdir(tmp_path)
        found = runpy.run_path(str(program))["forecast"]
        with (tmp_path / "forecast.csv").open() as file:
            predicted = [float(row["load"]) for row in csv.DictReader(file)]
        assert found.tolist() == pytest.approx(predicted, abs=1e-4)
        found = runpy.run_path(str(tmp_path / "classes_onnx.py"))["classes"]
        with (tmp_path / "classes.csv").open() as file:
            assert found == {row["id"]: row["class"] for row in csv.DictReader(file)}


def test_the_pages_have_commands() -> None:
    assert sum(len(commands(page)) for page in PAGES) > 40


def test_the_python_of_the_docs_works(tmp_path: Path) -> None:
    (program,) = [
        text
        for page in PAGES
        for text in blocks("python", page)
        if "from seqbench.experiment import run" in text
    ]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "mse" in done.stdout


def test_the_korean_readme_has_the_commands_of_the_other_pages() -> None:
    known = [command for page in PAGES for command in commands(page)]
    assert len(commands(KOREAN)) > 5
    assert [command for command in commands(KOREAN) if command not in known] == []


@pytest.mark.parametrize("page", TEXTS, ids=name_of)
def test_links_lead_to_files(page: Path) -> None:
    links = LINK.findall(page.read_text(encoding="utf-8"))
    local = [link for link in links if not re.match(r"[a-z]+:", link)]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_run_ids_are_those_of_the_commands_shown() -> None:
    command = ["model=tcn", "task=adding", "budget=quick"]
    first, second = run_id(compose(command)), run_id(compose([*command, "seed=1"]))
    assert f"outputs/runs/adding/tcn/{first}\n" in README.read_text(encoding="utf-8")
    guide = (ROOT / "docs" / "getting_started.md").read_text(encoding="utf-8")
    assert f"seqbench compare {first[:8]} {second[:8]} " in guide


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150


def test_tables_are_those_of_the_reference_records(tmp_path, seqbench) -> None:
    tables = [found for page in PAGES for found in TABLE.findall(page.read_text(encoding="utf-8"))]
    assert len(tables) >= 2
    (tmp_path / "outputs").symlink_to(ROOT / "outputs")
    for words, shown in tables:
        assert shown == seqbench(*words.split()).stdout.strip()
