"""Runs that are interrupted, trained by another process, or started a second time."""

import json
import os
import signal

import pytest
from patience import until

from seqbench.runs.record import read_record

# Some seconds of training, to be interrupted in the middle.
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
    events = "outputs/runs/*/*/*/events.jsonl"
    until(lambda: any(p.read_bytes().count(b'"train"') >= step for p in folder.glob(events)))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Return what the same run leaves if it is not interrupted."""
    from seqbench.config.compose import compose
    from seqbench.experiment import run

    folder = tmp_path_factory.mktemp("undisturbed")
    run(compose([*WORDS[1:], f"output_dir={folder / 'outputs'}"]))
    return comparable(run_folder(folder))


def comparable(run):
    """Return the record, without measurements, and the events of a run."""
    record = read_record(run / "record.json").to_json()
    record.pop("measured")
    return record, (run / "events.jsonl").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_resumes_to_the_same_bits(
    tmp_path, start, seqbench, undisturbed, number
):
    command = start(*WORDS)
    until_step(tmp_path, 5)
    os.kill(command.process.pid, number)
    stopped = command.wait()
    assert stopped.returncode == 130
    assert stopped.stdout == ""
    error = stopped.stderr.splitlines()[-1]
    assert error.startswith("error: interrupted at step ")
    assert error.endswith(
        " of 150; a checkpoint was written, rerun the same command without --force to resume"
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
    assert comparable(run) == undisturbed


def test_a_sweep_whose_process_group_is_terminated_resumes(tmp_path, start, seqbench):
    words = ("sweep", *WORDS[1:], "seed=0,1", "launch.workers=2")
    command = start(*words)
    until_step(tmp_path, 5)
    os.killpg(command.process.pid, signal.SIGTERM)  # as `timeout` and some clusters do
    stopped = command.wait()
    assert stopped.returncode == 130, stopped.stderr
    assert "failed" not in stopped.stderr
    runs = list((tmp_path / "outputs" / "runs" / "adding" / "rnn").iterdir())
    assert "interrupted" in {history(run)[-1] for run in runs}
    assert not any((run / "record.json").exists() for run in runs)
    done = seqbench(*words)
    assert done.returncode == 0, done.stderr
    assert all(history(run)[-1] == "completed" for run in runs)


def test_a_run_that_another_process_trains_is_refused(tmp_path, start, seqbench):
    process = start(*WORDS, "trainer.steps=100000").process
    until_step(tmp_path, 1)
    done = seqbench(*WORDS, "trainer.steps=100000")
    assert process.is_alive()
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    run = run_folder(tmp_path)
    assert f"run {run.name} is being trained by process {process.pid} on " in done.stderr
    assert history(run) == ["started"]


def test_a_completed_run_is_shown_and_trained_again_only_by_force(tmp_path, seqbench):
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
