"""Runs that are stopped, met by another process, or given a second time."""

import json
import os
import signal
import time

import pytest

from seqbench.runs.record import read_record

# Long enough to be caught in the middle: a few seconds.
WORDS = (
    *("train", "model=rnn", "task=adding", "budget=smoke", "threads=1", "recipe=none"),
    *("model.hidden_size=32", "task.length=200", "trainer.steps=150", "trainer.log_every=1"),
)


def run_folder(folder):
    (run,) = (folder / "outputs" / "runs" / "adding" / "rnn").iterdir()
    return run


def history(run):
    lines = (run / "history.jsonl").read_text().splitlines()
    return [json.loads(line)["event"] for line in lines]


def until_step(folder, step):
    """Wait until the one run in a folder has logged a step."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for path in folder.glob("outputs/runs/*/*/*/events.jsonl"):
            if path.read_bytes().count(b'"train"') >= step:
                return
        time.sleep(0.01)
    pytest.fail(f"no step {step} in 120 s")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The record of the same run, never interrupted."""
    from seqbench.config.compose import compose
    from seqbench.experiment import run

    folder = tmp_path_factory.mktemp("whole")
    run(compose([*WORDS[1:], f"output_dir={folder / 'outputs'}"]))
    return comparable(run_folder(folder))


def comparable(run):
    """What must be equal, bit for bit, however often a run was cut off."""
    record = read_record(run / "record.json").to_json()
    record.pop("measured")
    return record, (run / "events.jsonl").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_leaves_a_checkpoint_and_goes_on(tmp_path, start, seqbench, whole, number):
    process = start(*WORDS)
    until_step(tmp_path, 5)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    error = err.splitlines()[-1]
    assert error.startswith("error: interrupted at step ")
    assert error.endswith(
        " of 150; a checkpoint was written, from which the same command, without --force, goes on"
    )
    step = int(error.split()[4])
    assert 5 <= step < 150
    run = run_folder(tmp_path)
    assert history(run) == ["started", "interrupted"]
    assert (run / "checkpoints" / "last.safetensors").exists()
    assert not (run / "record.json").exists()

    done = seqbench("train", "--resume", run.name[:6])
    assert done.returncode == 0, done.stderr
    assert f"resumed from the checkpoint at step {step}" in done.stderr
    assert history(run) == ["started", "interrupted", "resumed", "completed"]
    assert comparable(run) == whole


def test_a_sweep_whose_whole_group_is_told_to_end_goes_on(tmp_path, start, seqbench):
    words = ("sweep", *WORDS[1:], "seed=0,1", "launch.workers=2")
    process = start(*words)
    until_step(tmp_path, 5)
    os.killpg(process.pid, signal.SIGTERM)  # as `timeout` does, and some clusters
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "failed" not in err
    runs = list((tmp_path / "outputs" / "runs" / "adding" / "rnn").iterdir())
    assert "interrupted" in {history(run)[-1] for run in runs}
    assert not any((run / "record.json").exists() for run in runs)
    done = seqbench(*words)
    assert done.returncode == 0, done.stderr
    assert all(history(run)[-1] == "completed" for run in runs)


def test_a_run_that_another_process_trains_is_left_alone(tmp_path, start, seqbench):
    process = start(*WORDS, "trainer.steps=100000")
    until_step(tmp_path, 1)
    done = seqbench(*WORDS, "trainer.steps=100000")
    assert process.poll() is None
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    run = run_folder(tmp_path)
    assert f"run {run.name} is being trained by process {process.pid} on " in done.stderr
    assert history(run) == ["started"]


def test_a_finished_run_is_shown_and_not_trained_again(tmp_path, seqbench):
    words = ("train", "model=tcn", "task=adding", "budget=smoke", "threads=1")
    first = seqbench(*words)
    assert first.returncode == 0, first.stderr
    (run,) = tmp_path.glob("outputs/runs/adding/tcn/*")
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    second = seqbench(*words)
    assert second.returncode == 0
    assert "this run is over already" in second.stderr
    assert "step 20/20" not in second.stderr
    score = next(line for line in first.stderr.splitlines() if line.startswith("reached"))
    assert score in second.stderr
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == before
    assert second.stdout == ""

    forced = seqbench(*words, "--force")
    assert forced.returncode == 0
    assert history(run) == ["started", "completed"] * 2
