"""Deleting what runs do not need any more."""

import io
import json
import shutil
import sys
from unittest.mock import patch

import pytest

from seqbench.config.compose import compose
from seqbench.experiment import run
from seqbench.runs.cleaning import delete_waste
from seqbench.runs.run import Run

SMALL = ("model=gru", "model.hidden_size=4", "task=char_markov", "budget=smoke", "threads=1")
KEPT = {"config.yaml", "events.jsonl", "history.jsonl", "log.txt", "record.json", ".lock"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the output folder of a completed run with both checkpoints."""
    folder = tmp_path_factory.mktemp("trained")
    run(compose([*SMALL, f"output_dir={folder}"]))
    return folder


@pytest.fixture
def completed(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "outputs")
    (folder,) = (tmp_path / "outputs/runs/char_markov/gru").iterdir()
    return Run(folder)


def ended(completed, status, digit):
    """Return a run beside the completed one that ended with a status."""
    folder = completed.folder.with_name(digit * 12)
    shutil.copytree(completed.folder, folder)
    found = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps(found | {"status": status}))
    for name in ("evaluations.jsonl", "confusion.json"):
        (folder / name).touch()
    if status == "unfinished":
        (folder / "record.json").unlink()
    return Run(folder)


def names(run):
    return {path.relative_to(run.folder).as_posix() for path in run.folder.rglob("*")}


def shown(code, out, err):
    """Return what a command printed, without blanks and the list of the run's files."""
    return code, [line.split() for line in out if not line.rstrip().endswith("bytes")], err


def test_a_completed_run_keeps_what_other_commands_read(completed, seqbench):
    name = completed.run_id
    reading = (["show", name], ["eval", name], ["table"], ["generate", name, "--prompt", "a"])
    before = [shown(*seqbench(*words)) for words in reading]
    size = sum(
        (completed.checkpoints / f"{kind}.safetensors").stat().st_size
        for kind in ("last", "previous")
    )
    code, out, err = seqbench("clean", "--yes")
    assert code == 0
    assert out[1].split() == [
        *(name, "char_markov", "gru", "completed", "last", "checkpoints", "2", f"{size:,}")
    ]
    assert out[2].split() == ["total", "2", f"{size:,}"]
    assert "can no longer be continued" in err[0]
    assert err[1:] == [f"deleted 2 files, {size:,} bytes"]
    assert names(completed) == {*KEPT, "checkpoints", "checkpoints/best.safetensors"}
    after = [shown(*seqbench(*words)) for words in reading]
    assert after == before
    assert [code for code, _, _ in after] == [0, 0, 0, 0]
    code, _, err = seqbench("train", "--resume", name, "trainer.steps=40")
    assert code == 1
    assert "last.safetensors was deleted; 'seqbench train --resume" in err[0]
    assert seqbench("clean", "--yes") == (0, [], ["nothing to delete in outputs"])


def test_nothing_is_deleted_without_consent(completed, seqbench, monkeypatch):
    before = names(completed)
    assert seqbench("clean", "--dry-run")[0] == 0
    code, out, err = seqbench("clean")
    assert (code, out) == (2, [])
    assert err == [
        "error: expected a terminal to ask on: add --yes to delete, or --dry-run to list only"
    ]
    terminal = io.StringIO("n\n")
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stdin", terminal)
    code, _, err = seqbench("clean")
    assert code == 0
    assert err[-1].endswith("nothing was deleted")
    assert names(completed) == before


def test_other_runs_are_deleted_only_by_their_option(completed, seqbench):
    runs = {
        status: ended(completed, status, digit)
        for status, digit in (("failed", "a"), ("diverged", "b"), ("unfinished", "c"))
    }
    own = runs["failed"].folder / "my_notes.txt"
    own.write_text("mine")
    code, out, _ = seqbench("clean", "--yes")
    assert (code, len(out)) == (0, 3)
    for status, one in runs.items():
        assert names(one) >= {*KEPT - {"record.json"}, "checkpoints/last.safetensors"}
        code, out, _ = seqbench("clean", "--yes", f"--{status}")
        assert code == 0
        assert out[1].split()[:6] == [one.run_id, "char_markov", "gru", status, "all", "files"]
        assert one.folder.exists() == (status == "failed")
    # What the user put there stays.
    assert names(runs["failed"]) == {"my_notes.txt"}
    assert names(completed) >= KEPT


def test_a_run_that_a_process_holds_is_left_as_it_is(completed, seqbench):
    held = ended(completed, "unfinished", "c")
    before = names(held) | {".lease"}
    with held.held():
        code, _, err = seqbench("clean", "--yes", "--unfinished")
        assert code == 0
        assert err[0].startswith(f"left out: run {held.run_id} is being trained by process ")
        # Nor one that is taken between the list and the deletion.
        with patch("seqbench.runs.lock.is_held", lambda folder: False):
            code, _, err = seqbench("clean", "--yes", "--unfinished")
        assert code == 1
        assert err[-3].startswith(f"left out: run {held.run_id} is being trained by process ")
        assert err[-1] == "error: 1 of 1 runs were not cleaned"
        assert names(held) == before
    assert delete_waste(held, ["unfinished"]) is not None
    assert not held.folder.exists()


def test_links_and_folders_of_others_are_left_alone(completed, seqbench, tmp_path):
    outside = tmp_path / "outside"
    shutil.copytree(completed.folder, outside / completed.run_id)
    before = names(Run(outside))
    (tmp_path / "outputs/runs/linked").symlink_to(outside)
    linked = ended(completed, "unfinished", "c")
    shutil.rmtree(linked.checkpoints)
    linked.checkpoints.symlink_to(outside / completed.run_id / "checkpoints")
    # A project of the user has a config.yaml, too.
    project = tmp_path / "outputs/runs/project"
    project.mkdir()
    (project / "config.yaml").write_text("choices: {}\n")
    code, out, err = seqbench("clean", "--yes", "--unfinished")
    assert code == 0
    assert len(out) == 3
    assert any(
        line.endswith("project is not named by a run id, so it is not deleted") for line in err
    )
    assert any(f"{linked.checkpoints.name} is a link or special file" in line for line in err)
    assert names(Run(outside)) == before
    assert (project / "config.yaml").exists()
    assert (linked.folder / "config.yaml").exists()


def test_a_completed_run_without_its_best_weights_keeps_the_last_ones(completed, seqbench):
    (completed.checkpoints / "best.safetensors").unlink()
    assert seqbench("clean", "--yes")[2] == ["nothing to delete in outputs"]
    assert seqbench("clean", "nowhere", "--yes") == (2, [], ["error: there is no folder 'nowhere'"])
