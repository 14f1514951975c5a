import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest
import yaml
from record_factory import make_record

from seqbench.errors import RunError, RunLocked
from seqbench.runs import lock
from seqbench.runs.run import Run

HOLD = """
import sys
from pathlib import Path
from seqbench.runs.run import Run

with Run(Path(sys.argv[1])).held():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "0123456789ab")


@contextmanager
def another_process_holding(run):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, run.folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_held_run_cannot_be_had_until_its_holder_is_gone(run):
    with another_process_holding(run) as process:
        with pytest.raises(RunLocked) as caught, run.held():
            pytest.fail("two processes hold one run")
        holder = f"process {process.pid} on {socket.gethostname()}"
        assert str(caught.value) == f"run 0123456789ab is being trained by {holder}"
        # Killed, it cannot tidy up; its lock dies with it all the same.
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with pytest.raises(ZeroDivisionError), run.held():
            _ = 1 / 0
        with run.held(), pytest.raises(RunLocked, match=f"{os.getpid()} on "), run.held():
            pytest.fail("held twice by one process")


def test_a_lease_of_another_machine_holds_until_it_expires(run):
    with patch.object(socket, "gethostname", return_value="elsewhere"), run.held():
        lease = run.folder / ".lease"
        text = lease.read_text()
    assert "on elsewhere" in text
    lease.write_text(text)  # that machine went down: nothing but the lease is left
    with pytest.raises(RunLocked, match="on elsewhere"), run.held():
        pytest.fail("held in spite of the lease")
    assert lease.read_text() == text
    expired = lease.stat().st_mtime - lock.LEASE - 1
    os.utime(lease, (expired, expired))
    with run.held():
        assert lease.read_text() == f"process {os.getpid()} on {socket.gethostname()}"
    assert not lease.exists()


def test_a_holder_renews_its_lease(run):
    with patch.object(lock, "RENEWAL", 0.01), run.held():
        lease = run.folder / ".lease"
        os.utime(lease, (0, 0))
        for _ in range(500):
            if lease.stat().st_mtime > 0:
                break
            time.sleep(0.01)
        assert lease.stat().st_mtime > 0


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(RunError, match="Not a directory"),
        Run(tmp_path / "file" / "run").held(),
    ):
        pytest.fail("held")


def test_a_run_on_disk(run):
    choices = {"task": "adding", "model": "tcn"}
    named = Run.of({"output_dir": "out", "seed": 0, "choices": choices})
    assert named.folder.parts == ("out", "runs", "adding", "tcn", named.run_id)
    assert run.record is None
    assert not run.folder.exists()
    config = {"seed": 1, "a": {"z": [1, 2.5, None, True], "b": "text: é\nmore"}}
    with run.held():
        run.write_config(config)
        run.finish(make_record())
        for line in ("one", "two"):
            with run.log() as write:
                write(line)
    text = (run.folder / "config.yaml").read_text(encoding="utf-8")
    assert list(yaml.safe_load(text).items()) == list(config.items())
    assert run.record == make_record()
    assert run.log_path.read_text() == "one\ntwo\n"


@pytest.mark.parametrize(
    ("inside", "folder", "output_dir"),
    [
        ("", "outputs/runs/t/m/id", "outputs"),
        ("", "real/runs/t/m/id", "outputs"),
        ("", "mine/runs/t/m/id", "mine"),
        ("", "{}/mine/runs/t/m/id", "{}/mine"),
        ("", "mine/reference/t/m/id", None),
        ("", "id", None),
        ("mine", "runs/t/m/id", "."),
        ("mine/runs", "../runs/t/m/id", ".."),
        ("mine/runs/t/m", "id", "{}/mine"),
        ("mine/runs/t/m/id", ".", "{}/mine"),
        ("mine/runs/t/m/id", "../id", "{}/mine"),
        ("mine/runs/t/m/id", "../../m/id", "{}/mine"),
        ("mine/runs/t", "../../reference/t/m/id", None),
        ("mine/runs", "../runs/../t/id", None),
    ],
)
def test_the_output_folder_of_a_run(inside, folder, output_dir, tmp_path, monkeypatch):
    for name in ("real", "mine"):
        (tmp_path / name / "runs/t/m/id").mkdir(parents=True)
    (tmp_path / "outputs").symlink_to("real")
    monkeypatch.chdir(tmp_path / inside)
    found = Run(Path(folder.format(tmp_path))).output_dir
    assert found == (None if output_dir is None else Path(output_dir.format(tmp_path)))


def test_the_run_of_a_file_of_weights(run, tmp_path, monkeypatch):
    run.checkpoints.mkdir(parents=True)
    monkeypatch.chdir(run.checkpoints)
    for path in (Path("best.safetensors"), run.checkpoints / "best.safetensors"):
        assert Run.of_weights(path).folder == run.folder
        assert Run.of_weights(path).run_id == "0123456789ab"


def test_the_history_grows_by_a_line_with_host_and_time(run):
    with run.held():
        run.append_history("started", step=0)
        run.append_history("interrupted", reason="a signal")
    lines = (run.folder / "history.jsonl").read_text().splitlines()
    first, second = map(json.loads, lines)
    assert (first["event"], first["step"], first["host"]) == ("started", 0, socket.gethostname())
    assert (second["event"], second["reason"]) == ("interrupted", "a signal")
    assert first["time"].endswith("+00:00")


def test_starting_over_forgets_all_but_the_history(run):
    with run.held():
        run.append_history("started", step=0)
        run.write_config({})
        run.finish(make_record())
        run.events_path.write_text("{}\n")
        (run.checkpoints / "last.safetensors").write_bytes(b"")
        with run.log() as write:
            write("a line")
        run.start_over()
    assert run.record is None
    assert list(run.checkpoints.iterdir()) == []
    left = {path.name for path in run.folder.iterdir() if not path.name.startswith(".")}
    assert left == {"checkpoints", "config.yaml", "history.jsonl"}


def test_a_draft_that_vanishes_while_the_folder_is_looked_at_is_no_link(tmp_path, monkeypatch):
    """The process that holds the run renames it meanwhile."""
    run = Run(tmp_path / "abc")
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: [*listed(path), path / ".config.yaml.draft"])
    with run.held():
        assert run.checkpoints.is_dir()
