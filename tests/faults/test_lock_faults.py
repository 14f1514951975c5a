"""Several processes train one run at the same time."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from small_run import difference, history, small

from seqbench.errors import RunLocked
from seqbench.experiment import run
from seqbench.runs import lock
from seqbench.runs.observer import Observer
from seqbench.runs.run import Run

OTHER = "process 42 on elsewhere"

# Two processes start one run at the same instant, five times.
MEETINGS = """
import json, os, sys
import yaml
from seqbench.errors import RunError
from seqbench.experiment import run
from seqbench.runs.observer import Observer

class Trained(Observer):
    def started(self, facts):
        os.write(told, b"trained;")

def race(config):
    ready, go = os.pipe()
    pids = []
    for _ in range(2):
        if not (pid := os.fork()):
            os.close(go)
            os.read(ready, 1)
            try:
                run(config, Trained())
                os.write(told, b"done;")
            except RunError as error:
                os.write(told, f"{error};".encode())
            finally:
                os._exit(0)
        pids.append(pid)
    os.close(go)
    os.close(ready)
    for pid in pids:
        os.waitpid(pid, 0)

config = yaml.safe_load(sys.stdin)
run(config | {"output_dir": f"{config['output_dir']}/first"})  # imports what a training needs
for i in range(5):
    read, told = os.pipe()
    race(config | {"output_dir": f"{config['output_dir']}/{i}"})
    print(json.dumps(os.read(read, 10000).decode().split(";")[:-1]), flush=True)
    os.close(read)
    os.close(told)
"""


@pytest.fixture(scope="module")
def meetings(tmp_path_factory):
    """Return the output of the processes at each meeting, and its place."""
    config = small(tmp_path_factory.mktemp("meetings"))
    done = subprocess.run(
        [sys.executable, "-c", MEETINGS],
        input=yaml.safe_dump(config),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return config, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("i", range(5))
def test_of_two_that_start_at_once_one_trains(i, meetings, undisturbed):
    config, said = meetings
    config = config | {"output_dir": f"{config['output_dir']}/{i}"}
    assert said[i].count("trained") == 1
    # The other was turned away, or came when all was over and was shown the record.
    others = [word for word in said[i] if word not in ("trained", "done")]
    assert said[i].count("done") + len(others) == 2
    for word in others:
        # "another process", in the instant before the holder has written who it is.
        assert word.startswith(f"run {Run.of(config).run_id} is being trained by ")
    assert history(config) == [("started", 0), ("completed", 20)]
    assert difference(undisturbed, config) is None


class Once:
    """An event that lets a lease be renewed once."""

    def __init__(self):
        self.waits = iter([False, True])

    def wait(self, seconds):
        return next(self.waits)


def test_a_folder_that_was_made_anew_gets_no_lease_of_an_earlier_holder(tmp_path):
    # A renewal comes too late: the folder is gone, and another run's may stand in its place.
    with lock.held(tmp_path, "this run"):
        for path in tmp_path.iterdir():
            path.unlink()
        lock.renew(tmp_path, Once())
        assert list(tmp_path.iterdir()) == []


class TakenOver(Observer):
    """Let another machine take over a run at an event, counted from 0."""

    def __init__(self, folder: Path, event: int) -> None:
        self.folder, self.left, self.before = folder, event, {}

    def event(self, event):
        if self.left == 0:
            (self.folder / ".lease").write_text(OTHER)
            self.before = files(self.folder)
        self.left -= 1


def files(folder: Path) -> dict[str, bytes]:
    """Return the files that a training writes; `log.txt` also gets the lines of observers."""
    paths = [*folder.glob("checkpoints/*"), *folder.glob("*.json*"), folder / ".lease"]
    return {path.name: path.read_bytes() for path in paths}


# The small run has 15 events. After the last one it tests and writes its record.
@pytest.mark.parametrize("event", [0, 5, 6, 14])
def test_a_process_that_lost_its_run_stops_and_writes_nothing(event, tmp_path, undisturbed):
    config = small(tmp_path)
    folder = Run.of(config).folder
    other = TakenOver(folder, event)
    with pytest.raises(RunLocked, match=f"stopped: {folder} was taken over by {OTHER}"):
        run(config, other)
    assert files(folder) == other.before
    (folder / ".lease").unlink()  # the other one is done
    assert run(config).status == "completed"
    assert difference(undisturbed, config) is None


def test_a_lease_of_another_holder_is_neither_renewed_nor_deleted(tmp_path):
    lease = tmp_path / ".lease"
    with lock.held(tmp_path, "this run"):
        lease.write_text(OTHER)
        os.utime(lease, (0, 0))
        lock.renew(tmp_path, Once())
        assert lease.stat().st_mtime == 0
    assert lease.read_text() == OTHER


HOLD = """
import errno, fcntl, sys
from pathlib import Path
from seqbench.runs import lock

def flock(file, operation):
    raise OSError(errno.ENOSYS, "Function not implemented")

fcntl.flock = flock
with lock.held(Path(sys.argv[1]), "this run"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_without_file_locks_the_lease_decides(tmp_path, monkeypatch):
    def flock(file, operation):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    lease = tmp_path / ".lease"
    (tmp_path / ".lock").touch()  # alone it locks nothing
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], **pipes) as process:
        assert process.stdout.readline() == b"held\n"
        with (
            pytest.raises(RunLocked, match=f"by process {process.pid} on "),
            lock.held(tmp_path, "this run"),
        ):
            pytest.fail("held twice")
        process.kill()
    with lock.held(tmp_path, "this run"):  # the holder died on this machine
        pass
    assert not lease.exists()
    lease.write_text(OTHER)
    with pytest.raises(RunLocked, match="on elsewhere"), lock.held(tmp_path, "this run"):
        pytest.fail("held in spite of the lease")
    os.utime(lease, (time.time() - lock.LEASE - 1,) * 2)
    with lock.held(tmp_path, "this run"):
        pass


def test_a_lock_is_not_kept_by_what_its_dead_holder_forked(tmp_path):
    told, tell = os.pipe()
    wait, end = os.pipe()
    if not (holder := os.fork()):
        with lock.held(tmp_path, "this run"):
            if not os.fork():
                os.close(end)
                os.read(wait, 1)
                os._exit(0)
            os.write(tell, b"x")
            os.kill(os.getpid(), signal.SIGKILL)
    os.read(told, 1)
    os.waitpid(holder, 0)
    with lock.held(tmp_path, "this run"):
        pass
    for descriptor in (told, tell, wait, end):
        os.close(descriptor)
