"""The script that compares two revisions, tried on a throw-away repository made of this tree."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "compare_revisions.py"


def git(repository, *words):
    identity = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    command = ["git", *identity, "-c", "commit.gpgsign=false", *words]
    done = subprocess.run(command, cwd=repository, check=True, capture_output=True, text=True)
    return done.stdout


def compare(repository, *words):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *words], cwd=repository, capture_output=True, text=True
    )


def change(path, old, new, message):
    """Commit a change to one file."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    git(path.parent, "commit", "--quiet", "--all", "--message", message)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """This tree as `first`, then `refactored`, `other` in what a TCN computes, and `broken`."""
    folder = tmp_path_factory.mktemp("repository")
    for name in ("seqbench", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "first")
    git(folder, "tag", "first")
    tcn = folder / "seqbench" / "models" / "tcn.py"
    change(tcn, "output_std", "output_deviation", "refactored")
    config = folder / "configs" / "model" / "tcn.yaml"
    change(config, "output_std", "output_deviation", "refactored")
    git(folder, "tag", "refactored")
    change(tcn, "if output_deviation is not None", "if output_deviation is None", "other")
    git(folder, "tag", "other")
    change(folder / "seqbench" / "errors.py", "class Seqbench", "klass Seqbench", "broken")
    git(folder, "tag", "broken")
    yield folder
    assert git(folder, "worktree", "list").count("\n") == 1


SMALL = ("--pair", "tcn/adding", "--pair", "lstm/adding", "--steps", "3", "--", "recipe=none")


def test_a_renaming_changes_nothing(repository):
    done = compare(repository, "first", "refactored", *SMALL)
    assert done.stdout.splitlines() == ["tcn/adding   equal", "lstm/adding  equal"], done.stderr
    assert done.returncode == 0


def test_another_initialisation_is_found_and_located(repository):
    done = compare(repository, "first", "other", *SMALL)
    tcn, lstm = done.stdout.splitlines()
    assert tcn.startswith("tcn/adding   step 1: train ")
    assert lstm == "lstm/adding  equal"
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("revision", "said"),
    [("nowhere", "cannot check out nowhere"), ("broken", "broken cannot be run: SyntaxError")],
)
def test_a_revision_that_cannot_be_run_costs_one_line(repository, revision, said):
    done = compare(repository, revision, "first", *SMALL)
    assert done.stderr.startswith(f"error: {said}")
    assert done.stderr.count("\n") == 1
    assert done.returncode == 2
    assert git(repository, "worktree", "list").count("\n") == 1
