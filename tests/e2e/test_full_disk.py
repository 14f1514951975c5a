"""A disk that fills up during a run leaves its files intact; the run resumes once there is room."""

import os
import subprocess

import pytest

from seqbench.runs.events import read_events
from seqbench.runs.record import read_record
from seqbench.training import checkpoint

# A checkpoint of this run takes about 150 kB.
WORDS = (
    *("train", "model=lstm", "task=adding", "budget=smoke", "threads=1", "recipe=none"),
    *("model.hidden_size=50", "trainer.eval_every=5", "trainer.log_every=1"),
)


@pytest.fixture
def small_disk(tmp_path):
    """Mount a disk of 300 kB as `outputs`; it holds one checkpoint but not two."""
    folder = tmp_path / "outputs"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True) if os.geteuid() == 0 else None
    if done is None or done.returncode:
        pytest.skip(f"needs root to mount a small disk ({done.stderr.strip() if done else 'not'})")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_an_error_of_one_line_and_the_run_resumes(small_disk, seqbench):
    done = seqbench(*WORDS)
    assert done.returncode == 1
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert "No space left on device" in lines[-1]
    assert [line for line in lines if line.startswith("error: ")] == [lines[-1]]
    assert "Traceback" not in done.stderr

    (run,) = small_disk.glob("runs/adding/lstm/*")
    assert not (run / "record.json").exists()
    saved, remark = checkpoint.load_last(run / "checkpoints")
    assert remark is None
    tensors, facts = saved
    assert facts["progress"]["step"] == 5
    assert tensors["model.output.weight"].shape == (1, 50)
    events = read_events(run / "events.jsonl")
    assert [event["step"] for event in events if event["split"] == "train"][:5] == [1, 2, 3, 4, 5]

    again = seqbench(*WORDS)
    assert again.returncode == 1
    assert "No space left on device" in again.stderr.splitlines()[-1]

    remount = ["mount", "-o", "remount,size=20m", str(small_disk)]
    subprocess.run(remount, check=True)
    finished = seqbench(*WORDS)
    assert finished.returncode == 0, finished.stderr
    assert f"resumed from the checkpoint at step {facts['progress']['step']}" in finished.stderr
    record = read_record(run / "record.json")
    assert (record.status, record.steps) == ("completed", 20)
    steps = [e["step"] for e in read_events(run / "events.jsonl") if e["split"] == "train"]
    assert steps == list(range(1, 21))
