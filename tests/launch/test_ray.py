"""Test the Ray engine on a cluster on this machine, and kill workers and nodes of the cluster."""

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from patience import until
from small_sweep import (
    SMALL,
    Once,
    history,
    kept,
    launcher,
    press,
    sweep,
    write_misbehaving,
)

from seqbench.config.compose import compose
from seqbench.errors import ConfigError
from seqbench.launch.job import Job
from seqbench.launch.ray_cluster import RayEngine, train
from seqbench.runs.run import Run

# Names of the Ray processes that may outlive their node by a minute.
AGENTS = {"ray::DashboardA\n", "ray::RuntimeEnv\n"}
# Bytes of shared memory per node; containers have little.
STORE = 100 * 2**20


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Yield a Ray cluster of one node with one CPU, and verify that its processes end.

    The environment variable `CLUSTER` identifies the processes.
    """
    pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLUSTER", str(tmp_path_factory.mktemp("cluster")))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # 15 by default: minutes on a busy machine
        # Detect a lost node sooner: its closed port fails two checks. A busy node still has Ray's
        # ten seconds to answer one.
        for key, value in (("period_ms", 500), ("timeout_ms", 10000), ("failure_threshold", 2)):
            patch.setenv(f"RAY_health_check_{key}", str(value))
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": STORE}
        started = Cluster(initialize_head=True, head_node_args=head)
        yield started
        started.shutdown()
        variable = f"CLUSTER={os.environ['CLUSTER']}"
        remaining = lambda: [p for p in processes(variable) if parent(p) != os.getpid()]  # noqa: E731
        until(lambda: {name(process) for process in remaining()} <= AGENTS)


@pytest.fixture
def on_it(cluster):
    return ["launch=ray", f"launch.address={cluster.address}"]


def processes(variable):
    """Return the ids of the live processes that were started with an environment variable."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            alive = "State:\tZ" not in (folder / "status").read_text()
            if alive and variable.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


def parent(process):
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def name(process):
    return Path(f"/proc/{process}/comm").read_text()


def descendants(process):
    """Return the ids of a process and all its descendants."""
    inner = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [process, *(found for child in inner for found in descendants(int(child)))]


@pytest.mark.ray
def test_runs_resume_after_their_worker_or_node_is_killed(cluster, on_it, slow):
    raylet = cluster.add_node(num_cpus=1, object_store_memory=STORE)
    raylet = raylet.all_processes["raylet"][0].process.pid

    def strike(sweep):
        """Kill the Ray worker of the run on the first node, and all processes of the other node."""
        for folder in sweep.running:
            job = int((folder / ".lease").read_text().split()[1])
            worker = parent(parent(job))  # parent(job) is the fork server
            if parent(worker) != raylet:
                os.kill(worker, signal.SIGKILL)
        for process in descendants(raylet):
            os.kill(process, signal.SIGKILL)
        Path("hurry").touch()

    words = [*slow, "seed=0,1"]
    killed = sweep([*words, *on_it], "own", view=Once(strike))
    assert len(killed.view.trained) == 2
    for folder in killed.jobs:
        assert history(folder)[-2:] == ["resumed", "completed"]
        lines = (json.loads(line) for line in (folder / "history.jsonl").open())
        assert any(line["event"] == "resumed" and line["step"] >= 10 for line in lines)
    sweep([*words, "output_dir=undisturbed"], "own", here=True)
    assert kept(Path("out")) == kept(Path("undisturbed"))


@pytest.mark.ray
def test_a_job_that_raises_or_is_killed_fails_alone(cluster, on_it, tmp_path, monkeypatch):
    """The custom model must be imported from the folder of the sweep, without an upload."""
    monkeypatch.chdir(tmp_path)
    misbehaving = write_misbehaving(tmp_path)
    swept = sweep([*misbehaving, "model.deed=raise,kill,none", *on_it], config_dir="own")
    found = {job.config["model"]["deed"]: swept.endings[at] for at, job in swept.jobs.items()}
    assert found["none"].how == "completed"
    assert found["raise"].reason == "LookupError: nothing there"
    assert "LookupError" in found["raise"].log.read_text()
    assert "SIGKILL" in found["kill"].reason


@pytest.mark.ray
def test_an_interrupted_sweep_resumes_from_its_checkpoints(cluster, on_it, slow):
    words = [*slow, "seed=0,1", *on_it]
    without_threads = [word for word in words if not word.startswith("threads")]
    stopped = sweep(without_threads, "own", view=Once(press(1), runs=1))
    assert stopped.stopped == "interrupted"
    [folder] = stopped.endings
    assert history(folder) == ["started", "interrupted"]
    Path("hurry").touch()
    sweep(words, "own")
    assert history(folder) == ["started", "interrupted", "resumed", "completed"]
    assert len(kept(Path("out"))) == 2


@pytest.mark.ray
def test_killing_the_launcher_ends_its_processes(slow, tmp_path):
    """Only Ray's agents may remain, and the runs must end as interrupted."""
    pytest.importorskip("ray")
    words = [*slow, "trainer.steps=20000", "seed=0,1", "launch=ray", "launch.workers=1"]
    killed = launcher(words, tmp_path, SWEEP=str(tmp_path), RAY_worker_niceness="0")
    runs = lambda: list(tmp_path.glob("out/runs/*/*/*/checkpoints/last.safetensors"))  # noqa: E731
    try:
        until(runs)
    finally:
        killed.process.kill()
    assert killed.wait().stdout == "", "expected no output of Ray on stdout"

    until(lambda: {name(process) for process in processes(f"SWEEP={tmp_path}")} <= AGENTS)
    assert {history(run.parents[1])[-1] for run in runs()} == {"interrupted"}


SETTINGS = {"address": None, "cpus": 1, "gpus": 0, "memory": None, "workers": None, "retries": 1}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cpus": 0}, "launch.cpus must be positive, not 0"),
        ({"gpus": -1}, "launch.gpus must not be negative"),
        ({"address": "127.0.0.1:1"}, "launch.address=127.0.0.1:1: connection failed"),
        ({"address": "ray://nowhere"}, "connection failed"),
    ],
)
def test_invalid_settings_raise_config_error(settings, message):
    with pytest.raises(ConfigError, match=message):
        RayEngine(**SETTINGS | settings)


def test_a_node_without_the_output_folder_reports_it(tmp_path):
    config = compose([*SMALL, f"output_dir={tmp_path}"])
    job = Job((), config, Run.of(config), tmp_path / "not made here" / "job.txt")
    ending = train(job, 1, False, str(Path.cwd()), {})
    assert (ending.how, "share output_dir" in ending.reason) == ("failed", True)


def test_without_ray_the_error_names_the_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'seqbench\[ray\]'"):
        RayEngine(**SETTINGS)
