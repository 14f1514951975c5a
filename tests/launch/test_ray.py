"""Test the Ray engine on a cluster on this machine, and kill workers and nodes of the cluster."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_sweep import SMALL, Seen, history, kept, sweep, write_misbehaving
from test_local import LAUNCHER, StopAt, processes, until

from seqbench.config.compose import compose
from seqbench.errors import ConfigError
from seqbench.launch.job import Job
from seqbench.launch.ray_cluster import RayEngine, train
from seqbench.runs.run import Run

# Ray starts slowly on a busy machine.
pytestmark = pytest.mark.timeout(600)
# Names of the Ray processes that may outlive their node by a minute.
AGENTS = {"ray::DashboardA\n", "ray::RuntimeEnv\n"}
# Bytes of shared memory per node; containers have little.
STORE = 100 * 2**20
LONG = [*SMALL, "trainer.steps=800", "trainer.eval_every=400", "trainer.checkpoint_every=50"]


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
        # Detect a lost node after two seconds instead of twenty.
        for key, value in (("period_ms", 500), ("timeout_ms", 1000), ("failure_threshold", 2)):
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


def parent(process):
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def name(process):
    return Path(f"/proc/{process}/comm").read_text()


def descendants(process):
    """Return the ids of a process and all its descendants."""
    inner = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [process, *(found for child in inner for found in descendants(int(child)))]


class Killer(Seen):
    """Kill the Ray worker of one run and all processes of another's node, from step 100 on."""

    def __init__(self, raylet):
        super().__init__()
        self.raylet, self.hit = raylet, {}

    def look(self, sweep):
        for folder, progress in sweep.running.items():
            if progress.step < 100 or folder in self.hit.values():
                continue
            try:
                job = int((folder / ".lease").read_text().split()[1])
                worker = parent(parent(job))  # parent(job) is the fork server
            except FileNotFoundError:  # the run has just ended
                continue
            if parent(worker) != self.raylet and "worker" not in self.hit:
                self.hit["worker"] = folder
                os.kill(worker, signal.SIGKILL)
            elif parent(worker) == self.raylet and "node" not in self.hit:
                self.hit["node"] = folder
                for process in descendants(self.raylet):
                    os.kill(process, signal.SIGKILL)


@pytest.mark.ray
def test_runs_resume_after_their_worker_or_node_is_killed(cluster, on_it, tmp_path):
    node = cluster.add_node(num_cpus=1, object_store_memory=STORE)
    killer = Killer(node.all_processes["raylet"][0].process.pid)
    overrides = [*LONG, "seed=0,1,2"]
    sweep([*overrides, *on_it, f"output_dir={tmp_path / 'killed'}"], view=killer)
    assert killer.hit.keys() == {"worker", "node"}
    assert len(killer.trained) == 3
    for folder in killer.hit.values():
        assert history(folder)[-2:] == ["resumed", "completed"]
        lines = (json.loads(line) for line in (folder / "history.jsonl").open())
        assert any(line["event"] == "resumed" and line["step"] >= 50 for line in lines)
    sweep([*overrides, "launch.workers=2", f"output_dir={tmp_path / 'undisturbed'}"])
    assert kept(tmp_path / "killed") == kept(tmp_path / "undisturbed")


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
def test_an_interrupted_sweep_resumes_from_its_checkpoints(cluster, on_it, tmp_path):
    overrides = [*LONG, "seed=0,1", f"output_dir={tmp_path}", *on_it]
    without_threads = [override for override in overrides if not override.startswith("threads")]
    stopped = sweep(without_threads, view=StopAt(40, times=1))
    assert stopped.stopped == "interrupted"
    [folder] = stopped.endings
    assert history(folder) == ["started", "interrupted"]
    sweep(overrides)
    assert history(folder) == ["started", "interrupted", "resumed", "completed"]
    assert len(kept(tmp_path)) == 2


@pytest.mark.ray
def test_killing_the_launcher_ends_its_processes(tmp_path):
    """Only Ray's agents may remain, and the runs must end as interrupted."""
    pytest.importorskip("ray")
    overrides = [*LONG, "trainer.steps=20000", "seed=0,1", "launch=ray", f"output_dir={tmp_path}"]
    environment = os.environ | {"SWEEP": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LAUNCHER, str(Path(__file__).parent), *overrides]
    launcher = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    runs = lambda: list(tmp_path.glob("runs/*/*/*/checkpoints/last.safetensors"))  # noqa: E731
    try:
        until(runs, 180)
    finally:
        launcher.kill()
    assert launcher.communicate()[0] == "", "expected no output of Ray on stdout"

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
