"""Test `scripts/compare_revisions.py` on a temporary repository with a copy of the sources."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "compare_revisions.py"


def git(repository, *arguments):
    identity = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    command = ["git", *identity, "-c", "commit.gpgsign=false", *arguments]
    result = subprocess.run(command, cwd=repository, check=True, capture_output=True, text=True)
    return result.stdout


def compare(repository, *arguments):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], cwd=repository, capture_output=True, text=True
    )


def change(path, old, new, message):
    """Replace `old` with `new` in a file, and commit the change."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    git(path.parent, "commit", "--quiet", "--all", "--message", message)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """Yield a repository with three tags, and verify that no worktree is left.

    `first` is a copy of the sources, `other` renames an argument of the TCN and changes its
    initial weights, and `broken` has a syntax error.
    """
    folder = tmp_path_factory.mktemp("repository")
    for name in ("seqbench", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "first")
    git(folder, "tag", "first")
    tcn = folder / "seqbench" / "models" / "tcn.py"
    config = folder / "configs" / "model" / "tcn.yaml"
    for path in (tcn, config):
        change(path, "output_std", "output_deviation", "renamed")
    change(tcn, "if output_deviation is not None", "if output_deviation is None", "other")
    git(folder, "tag", "other")
    change(folder / "seqbench" / "errors.py", "class Seqbench", "klass Seqbench", "broken")
    git(folder, "tag", "broken")
    yield folder
    assert git(folder, "worktree", "list").count("\n") == 1


SMALL = ("--pair", "tcn/adding", "--pair", "lstm/adding", "--steps", "3", "--", "recipe=none")


@pytest.mark.slow
def test_a_changed_initialization_is_reported_with_its_step(repository):
    result = compare(repository, "first", "other", *SMALL)
    tcn, lstm = result.stdout.splitlines()
    assert tcn.startswith("tcn/adding   step 1: train ")
    assert lstm == "lstm/adding  equal"
    assert result.returncode == 1


@pytest.mark.parametrize(
    ("revision", "message_start"),
    [("nowhere", "cannot check out nowhere"), ("broken", "broken cannot be run: SyntaxError")],
)
def test_an_invalid_revision_exits_with_one_error_line(repository, revision, message_start):
    result = compare(repository, revision, "first", *SMALL)
    assert result.stderr.startswith(f"error: {message_start}")
    assert result.stderr.count("\n") == 1
    assert result.returncode == 2
    assert git(repository, "worktree", "list").count("\n") == 1
