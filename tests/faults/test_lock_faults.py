"""Processes that meet at one run, and holders that are no more."""

import json
import os
import socket
import subprocess
import sys

import pytest
import yaml
from small_run import ROOT, difference, history, small

from seqbench.errors import RunError
from seqbench.experiment import run
from seqbench.runs import lock
from seqbench.runs.run import Run

# Two processes start one run at the same instant, five times; and five times a holder is killed.
MEETINGS = """
import json, os, runpy, signal, sys, time
import yaml
storm = runpy.run_path(sys.argv[1])
from seqbench.errors import RunError
from seqbench.experiment import run
from seqbench.runs.observer import Observer
from seqbench.runs.run import Run

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

def die_holding(config):
    if not (pid := os.fork()):
        with Run.of(config).held():
            os.kill(os.getpid(), signal.SIGKILL)
    assert storm["ended"](pid) == -signal.SIGKILL
    with Run.of(config).held():
        os.write(told, b"free;")

config = yaml.safe_load(sys.stdin)
for i in range(10):
    read, told = os.pipe()
    (race if i < 5 else die_holding)(config | {"output_dir": f"{config['output_dir']}/{i}"})
    print(json.dumps(os.read(read, 10000).decode().split(";")[:-1]), flush=True)
    os.close(read)
    os.close(told)
"""


@pytest.fixture(scope="module")
def meetings(tmp_path_factory):
    """What the processes said at each meeting, and where they met."""
    config = small(tmp_path_factory.mktemp("meetings"))
    done = subprocess.run(
        [sys.executable, "-c", MEETINGS, str(ROOT / "scripts" / "kill_storm.py")],
        input=yaml.safe_dump(config),
        capture_output=True,
        text=True,
        timeout=200,
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


def test_a_holder_that_was_killed_here_blocks_nobody(meetings):
    assert meetings[1][5:] == [["free"]] * 5


@pytest.mark.parametrize("age", [0, 110, 130, 1e8])
def test_a_lease_from_elsewhere_holds_for_two_minutes(age, cut_off, copied):
    config = copied(cut_off)
    folder = Run.of(config)
    lease = folder.folder / ".lease"
    lease.write_text("process 42 on elsewhere")
    now = lease.stat().st_mtime
    os.utime(lease, (now - age, now - age))
    before = {path: path.read_bytes() for path in folder.folder.rglob("*.*") if path.is_file()}
    if age < lock.LEASE:
        with pytest.raises(RunError, match="is being trained by process 42 on elsewhere; if that"):
            run(config)
        assert before == {path: path.read_bytes() for path in before}
    else:
        with folder.held():
            assert lease.read_text() == f"process {os.getpid()} on {socket.gethostname()}"
        assert not lease.exists()


def test_a_folder_that_was_made_anew_gets_no_lease_of_an_earlier_holder(tmp_path):
    # A renewal comes too late: the folder is gone, and another run's may stand in its place.
    class Once:
        waits = iter([False, True])

        def wait(self, seconds):
            return next(self.waits)

    lock.renew(tmp_path / ".lease", Once())
    assert list(tmp_path.iterdir()) == []
