"""Two users with a common group: runs of one that the other may only read."""

import os
import pwd
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from small_run import small

from seqbench.config.compose import Composer
from seqbench.launch.cost import Costs
from seqbench.launch.job import Ending, Job, train_job
from seqbench.launch.plan import forecast
from seqbench.launch.sweep import Policy, Sweep, View
from seqbench.results.collect import read_unfinished
from seqbench.runs import lock
from seqbench.runs.run import Run
from seqbench.user_files import make_folders

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as two users")
OWNER, GUEST, GROUP = "daemon", "bin", 4242


def act_as(user: str, action: Callable[[], object]) -> int:
    """Call a function in a child process of a user, and return the process id."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        os.setgroups([])
        os.setgid(GROUP)
        os.setuid(pwd.getpwnam(user).pw_uid)
        os.umask(0o022)
        action()
        code = 0
    finally:
        os._exit(code)


def succeeds(pid: int) -> bool:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@contextmanager
def held_by_owner(run: Run) -> Iterator[int]:
    """Let the owner hold a run; yield the process id."""
    told, tell = os.pipe()
    end, ending = os.pipe()

    def hold() -> None:
        with run.held():
            shutil.copy(run.folder.parents[3] / "config.yaml", run.folder)
            os.write(tell, b"x")
            os.close(ending)
            os.read(end, 1)

    pid = act_as(OWNER, hold)
    os.close(tell)
    assert os.read(told, 1), "the owner failed"
    yield pid
    os.close(ending)
    assert succeeds(pid)


@pytest.fixture
def shared() -> Iterator[Path]:
    """Provide an output folder that both users may write; run folders belong to their creators."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        output = Path(name) / "outputs"
        output.mkdir()
        os.chown(output, 0, GROUP)
        output.chmod(0o2775)
        yield output


def job_of(output: Path, seed: int) -> Job:
    config = small(output, f"seed={seed}")
    return Job((), config, Run.of(config), output / f"{seed}.txt")


def test_a_run_of_another_user_is_held_and_the_rest_of_a_sweep_goes_on(shared, undisturbed):
    first, second = job_of(shared, 0), job_of(shared, 1)
    shutil.copy(Run.of(undisturbed).folder / "config.yaml", shared)
    with held_by_owner(first.run) as pid:
        who = f"{OWNER}@{socket.gethostname()} (process {pid})"

        def sweep() -> None:
            assert lock.is_held(first.run.folder)
            assert not lock.is_held(second.run.folder)
            assert read_unfinished(first.run.folder).status == "running"
            assert forecast(first, Costs([])).state == "held"
            assert lock.holder(first.run.folder / ".lease") == who
            said = f"run {first.run.run_id} is being trained by {who}"
            assert train_job(first) == Ending("held", said)
            assert train_job(second).how == "completed"

        assert succeeds(act_as(GUEST, sweep))


def test_both_users_describe_their_launches_of_a_sweep(shared):
    words = ["model=tcn", "task=adding", "budget=smoke", f"output_dir={shared}"]

    def describe() -> None:
        sweep = Sweep(words, Composer(), Policy(), View())
        (job,) = sweep.compose([words])
        sweep.jobs[job.run.folder] = job
        sweep.describe()

    assert succeeds(act_as(OWNER, describe))
    assert succeeds(act_as(GUEST, describe))
    (path,) = shared.glob("sweeps/*/sweep.jsonl")
    assert path.read_text().count("\n") == 2


def test_a_folder_of_one_user_stays_so(tmp_path):
    tmp_path.chmod(0o775)
    make_folders(tmp_path / "a" / "b")
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "a" / "b").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_run_that_its_owner_left_is_free_but_not_to_be_written(shared):
    job = job_of(shared, 0)

    def die() -> None:
        with job.run.held():
            os._exit(0)

    assert succeeds(act_as(OWNER, die))
    assert (job.run.folder / ".lease").exists()

    def train() -> None:
        assert not lock.is_held(job.run.folder)
        ending = train_job(job)
        assert ending.how == "failed"
        assert "Permission denied" in ending.reason

    assert succeeds(act_as(GUEST, train))


@pytest.mark.parametrize(("age", "held"), [(1, True), (lock.LEASE + 1, False)])
def test_a_lease_of_another_machine_in_a_read_only_folder(shared, age, held):
    folder = shared / "copy"
    folder.mkdir(mode=0o755)
    (folder / ".lease").write_text("process 42 on elsewhere")
    os.utime(folder / ".lease", (time.time() - age,) * 2)

    def ask() -> None:
        assert lock.is_held(folder) is held
        assert [path.name for path in folder.iterdir()] == [".lease"]

    assert succeeds(act_as(GUEST, ask))
