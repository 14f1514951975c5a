"""The Ray engine: on a real cluster on this machine, whose workers and nodes get killed."""

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

# Ray starts slowly where others are at work.
pytestmark = pytest.mark.timeout(600)
# What of Ray takes a minute to believe that its node is gone.
AGENTS = {"ray::DashboardA\n", "ray::RuntimeEnv\n"}
# Shared memory of a node; there is little of it in a container.
STORE = 100 * 2**20
LONG = [*SMALL, "trainer.steps=2000", "trainer.eval_every=1000", "trainer.checkpoint_every=50"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """One with a single node of one CPU; whatever it starts carries a mark in its environment."""
    pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLUSTER", str(tmp_path_factory.mktemp("cluster")))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # A node that is gone is missed after two seconds, not after twenty.
        for key, value in (("period_ms", 500), ("timeout_ms", 1000), ("failure_threshold", 2)):
            patch.setenv(f"RAY_health_check_{key}", str(value))
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": STORE}
        made = Cluster(initialize_head=True, head_node_args=head)
        yield made
        made.shutdown()
        mark = f"CLUSTER={os.environ['CLUSTER']}"
        left = lambda: [p for p in processes(mark) if parent(p) != os.getpid()]  # noqa: E731
        until(lambda: {name(process) for process in left()} <= AGENTS)


@pytest.fixture
def on_it(cluster):
    return ["launch=ray", f"launch.address={cluster.address}"]


def parent(process):
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def name(process):
    return Path(f"/proc/{process}/comm").read_text()


def descendants(process):
    """A process and all below it."""
    inner = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [process, *(found for child in inner for found in descendants(int(child)))]


class Killer(Seen):
    """Kills the Ray worker of one run, and all of the node of another, once they are under way."""

    def __init__(self, raylet):
        super().__init__()
        self.raylet, self.hit = raylet, {}

    def look(self, sweep):
        for folder, progress in sweep.running.items():
            if progress.step < 100 or folder in self.hit.values():
                continue
            try:
                job = int((folder / ".lease").read_text().split()[1])
                worker = parent(parent(job))  # between them, the fork server
            except FileNotFoundError:  # it has just ended
                continue
            if parent(worker) != self.raylet and "worker" not in self.hit:
                self.hit["worker"] = folder
                os.kill(worker, signal.SIGKILL)
            elif parent(worker) == self.raylet and "node" not in self.hit:
                self.hit["node"] = folder
                for process in descendants(self.raylet):
                    os.kill(process, signal.SIGKILL)


@pytest.mark.ray
def test_runs_whose_worker_or_node_is_killed_go_on_elsewhere(cluster, on_it, tmp_path):
    node = cluster.add_node(num_cpus=1, object_store_memory=STORE)
    killer = Killer(node.all_processes["raylet"][0].process.pid)
    words = [*LONG, "seed=0,1,2,3"]
    sweep([*words, *on_it, f"output_dir={tmp_path / 'killed'}"], view=killer)
    assert killer.hit.keys() == {"worker", "node"}
    assert len(killer.trained) == 4
    for folder in killer.hit.values():
        assert history(folder)[-2:] == ["resumed", "completed"]
        lines = (json.loads(line) for line in (folder / "history.jsonl").open())
        assert any(line["event"] == "resumed" and line["step"] >= 50 for line in lines)
    sweep([*words, "launch.workers=2", f"output_dir={tmp_path / 'undisturbed'}"])
    assert kept(tmp_path / "killed") == kept(tmp_path / "undisturbed")


@pytest.mark.ray
def test_what_a_job_does_to_its_process_is_one_failure(cluster, on_it, tmp_path, monkeypatch):
    """And a user's own model is found in the folder of the sweep, which is uploaded nowhere."""
    monkeypatch.chdir(tmp_path)
    own = write_misbehaving(tmp_path)
    swept = sweep([*own, "model.deed=raise,kill,none", *on_it], config_dir="own")
    found = {job.config["model"]["deed"]: swept.endings[at] for at, job in swept.jobs.items()}
    assert found["none"].how == "completed"
    assert found["raise"].reason == "LookupError: nothing there"
    assert "LookupError" in found["raise"].log.read_text()
    assert "SIGKILL" in found["kill"].reason


@pytest.mark.ray
def test_stopped_once_it_keeps_checkpoints_and_goes_on_from_them(cluster, on_it, tmp_path):
    words = [*LONG, "seed=0,1", f"output_dir={tmp_path}", *on_it]
    free = [word for word in words if not word.startswith("threads")]
    stopped = sweep(free, view=StopAt(40, times=1))
    assert stopped.stopped == "interrupted"
    [folder] = stopped.endings
    assert history(folder) == ["started", "interrupted"]
    sweep(words)
    assert history(folder) == ["started", "interrupted", "resumed", "completed"]
    assert len(kept(tmp_path)) == 2


@pytest.mark.ray
def test_a_launcher_that_is_killed_leaves_nobody_behind(tmp_path):
    """Ray's own agents aside."""
    pytest.importorskip("ray")
    words = [*LONG, "trainer.steps=20000", "seed=0,1", "launch=ray", f"output_dir={tmp_path}"]
    environment = os.environ | {"SWEEP": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LAUNCHER, str(Path(__file__).parent), *words]
    launcher = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    runs = lambda: list(tmp_path.glob("runs/*/*/*/checkpoints/last.safetensors"))  # noqa: E731
    try:
        until(runs)
    finally:
        launcher.kill()
    assert launcher.communicate()[0] == "", "Ray leaves the terminal to the sweep"

    until(lambda: {name(process) for process in processes(f"SWEEP={tmp_path}")} <= AGENTS)
    assert {history(run.parents[1])[-1] for run in runs()} == {"interrupted"}


SETTINGS = {"address": None, "cpus": 1, "gpus": 0, "memory": None, "workers": None, "retries": 1}


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"cpus": 0}, "launch.cpus must be positive, not 0"),
        ({"gpus": -1}, "launch.gpus must not be negative"),
        ({"address": "127.0.0.1:1"}, "launch.address=127.0.0.1:1: connection failed"),
        ({"address": "ray://nowhere"}, "connection failed"),
    ],
)
def test_settings_that_cannot_be_cost_a_line(settings, complaint):
    with pytest.raises(ConfigError, match=complaint):
        RayEngine(**SETTINGS | settings)


def test_a_node_that_does_not_see_the_output_folder_says_so(tmp_path):
    config = compose([*SMALL, f"output_dir={tmp_path}"])
    job = Job((), config, Run.of(config), tmp_path / "not made here" / "job.txt")
    ending = train(job, 1, False, str(Path.cwd()), {})
    assert (ending.how, "share output_dir" in ending.reason) == ("failed", True)


def test_without_ray_the_way_to_get_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'seqbench\[ray\]'"):
        RayEngine(**SETTINGS)
