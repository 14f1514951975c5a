import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from patience import until
from safetensors.torch import load_file
from small_sweep import SMALL, Once, history, kept, launcher, press, sweep, write_misbehaving

from seqbench.config.compose import compose
from seqbench.errors import ConfigError
from seqbench.launch import local
from seqbench.launch.job import Job
from seqbench.launch.local import LocalEngine
from seqbench.runs.run import Run

TWO = "launch.workers=2"


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def processes(folder):
    """Return the links to the current folder of all processes whose folder it is."""
    found = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):
            found += [link] * (link.readlink() == folder)
    return found


@pytest.mark.slow
def test_a_warm_process_computes_the_bits_of_a_fresh_one(tmp_path):
    """Compare the second job of a sweep with a run of the installed command."""
    grid = ["model=lstm", "task=adding,copy", "launch.workers=1"]
    common = [word for word in SMALL if not word.startswith(("model", "task"))]
    common += ["task.length=12", "task.train_size=32", "task.eval_size=16", "model.dropout=0.2"]
    swept = sweep([*common, *grid, f"output_dir={tmp_path / 'warm'}"])
    assert {ending.how for ending in swept.endings.values()} == {"completed"}
    job = list(swept.jobs.values())[-1]
    words = [*job.words, f"output_dir={tmp_path / 'fresh'}"]
    command = [sys.executable, "-m", "seqbench", "train", *words]
    subprocess.run(command, check=True, capture_output=True)
    warm, fresh = kept(tmp_path / "warm"), kept(tmp_path / "fresh")
    assert len(warm) == 2
    assert fresh == {job.run.run_id: warm[job.run.run_id]}
    [theirs] = (tmp_path / "fresh").glob("**/checkpoints")
    for name in ("last", "best"):
        ours = load_file(job.run.checkpoints / f"{name}.safetensors")
        other = load_file(theirs / f"{name}.safetensors")
        assert ours.keys() == other.keys()
        assert all(ours[key].equal(other[key]) for key in ours)


def test_what_one_job_does_to_its_process_is_one_failure(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = write_misbehaving(tmp_path)
    deeds = ["raise", "kill", "abort", "leave", "memory", "none"]
    swept = sweep([*own, f"model.deed={','.join(deeds)}", TWO], config_dir="own")
    found = {job.config["model"]["deed"]: swept.endings[at] for at, job in swept.jobs.items()}
    assert found["none"].how == "completed"
    assert (found["raise"].how, found["raise"].reason) == ("failed", "LookupError: nothing there")
    assert "LookupError" in found["raise"].log.read_text()
    assert found["memory"].how == "failed"
    assert (found["kill"].how, found["kill"].log.name) == ("killed", "log.txt")
    assert "SIGKILL" in found["kill"].reason
    assert "SIGABRT" in found["abort"].reason
    assert "Fatal Python error: Aborted" in found["abort"].log.read_text()
    assert "code 7" in found["leave"].reason


def test_stopped_once_it_keeps_checkpoints_and_goes_on_from_them(slow):
    words = [*slow, "seed=0,1,2", TWO]
    stopped = sweep(words, "own", view=Once(press(1)))
    assert stopped.stopped == "interrupted"
    assert [ending.how for ending in stopped.endings.values()] == ["interrupted"] * 2
    folders = list(stopped.endings)
    assert all(history(folder)[-1] == "interrupted" for folder in folders)
    Path("hurry").touch()
    sweep([*words, "launch.workers=3"], "own")
    assert all(history(folder)[-2:] == ["resumed", "completed"] for folder in folders)
    assert len(kept(Path("out"))) == 3


def test_stopped_twice_it_ends_at_once(slow):
    with pytest.raises(KeyboardInterrupt):
        sweep([*slow, "seed=0,1,2", TWO], "own", view=Once(press(2)))
    assert kept(Path("out")) == {}


def test_a_launcher_that_is_killed_leaves_nobody_behind(slow, tmp_path, monkeypatch):
    """The system signals the jobs, which write checkpoints."""
    monkeypatch.chdir("/")  # the fork server of this process may start here
    killed = launcher([*slow, "trainer.steps=20000", "seed=0,1", TWO], tmp_path).process
    checkpoints = lambda: list(tmp_path.glob("out/runs/*/*/*/checkpoints/last.safetensors"))  # noqa: E731
    try:
        until(lambda: len(checkpoints()) == 2)
        assert len(processes(tmp_path)) >= 4
    finally:
        killed.kill()
        killed.join()
    until(lambda: not processes(tmp_path))
    assert [history(run)[-1] for run in tmp_path.glob("out/runs/*/*/*")] == ["interrupted"] * 2


def engine(**changed):
    return LocalEngine(**({"workers": None, "threads": 1, "jobs_per_device": 1} | changed))


def job(tmp_path, *words):
    config = compose([*SMALL, f"output_dir={tmp_path}", *words])
    return Job((), config, Run.of(config), tmp_path / "job.txt")


def test_there_is_a_place_for_each_core_or_on_each_gpu(monkeypatch):
    monkeypatch.setattr(local, "available_cores", lambda: 8)
    monkeypatch.setattr(local, "cuda_devices", list)
    assert engine().room() == 8
    assert engine(threads=3).room() == 2
    assert engine(threads=9).room() == 1
    assert engine(workers=5).room() == 5
    monkeypatch.setattr(local, "cuda_devices", lambda: ["0", "GPU-5"])
    assert engine().room() == 2
    on_gpus = engine(jobs_per_device=2)
    devices = [slot["CUDA_VISIBLE_DEVICES"] for slot in on_gpus.free]
    assert devices == ["0", "GPU-5", "0", "GPU-5"]


def test_an_idle_engine_waits_once(monkeypatch):
    waits = []
    monkeypatch.setattr(local, "wait", lambda *asked: waits.append(asked) or [])
    assert list(engine(workers=1).ended(0.2)) == []
    assert waits == [([], 0.2)]


def test_a_job_sees_its_gpu_only(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "cuda_devices", lambda: ["7"])
    monkeypatch.chdir(tmp_path)
    own = write_misbehaving(tmp_path)
    with (tmp_path / "misbehaving.py").open("a") as source:
        source.write("\nprint(os.environ.get('CUDA_VISIBLE_DEVICES', 'all'))\n")
    swept = sweep([*own, "model.deed=none"], config_dir="own")
    [only] = swept.jobs.values()
    assert only.output.read_text() == "7\n"


@pytest.mark.parametrize("name", ["workers", "threads", "jobs_per_device"])
def test_settings_that_cannot_be_cost_a_line(name, tmp_path):
    words = [*SMALL, f"output_dir={tmp_path}"]
    with pytest.raises(ConfigError, match=rf"launch.{name} must be positive, not 0"):
        sweep([*words, f"launch.{name}=0"])
    with pytest.raises(ConfigError, match=rf"^launch.{name} must be int( or null)?, not 'many'"):
        sweep([*words, f"launch.{name}=many"])


def test_an_unknown_setting_gets_a_near_miss(tmp_path):
    with pytest.raises(ConfigError, match=r"'launch.worker'"):
        sweep([*SMALL, f"output_dir={tmp_path}", "launch.worker=2"])
    with pytest.raises(ConfigError, match=r"no launch named 'locla' \(did you mean 'local'\?\)"):
        sweep([*SMALL, f"output_dir={tmp_path}", "launch=locla"])


def test_jobs_get_the_threads_that_nobody_chose_for_them(tmp_path):
    free = [word for word in SMALL if not word.startswith("threads")]
    swept = sweep([*free, f"output_dir={tmp_path}", "threads=null,2", "launch.threads=1"])
    [record] = [json.loads(p.read_text()) for p in tmp_path.glob("runs/*/*/*/record.json")]
    assert record["measured"]["threads"] == 1, "how many is no part of what a run is"
    assert len(swept.jobs) == 1


def test_two_sweeps_that_overlap_share_the_work(tmp_path, monkeypatch):
    """Each run is trained once, and both sweeps report all of theirs."""
    monkeypatch.chdir(tmp_path)
    words = [*write_misbehaving(tmp_path), "trainer.steps=60", TWO, f"output_dir={tmp_path}"]
    sweeps = [launcher([*words, f"seed=range({seeds})"], tmp_path) for seeds in ("0,4", "2,6")]
    assert [command.wait().returncode for command in sweeps] == [0, 0]
    runs = list(tmp_path.glob("runs/*/*/*"))
    assert len(runs) == 6
    assert all(history(run) == ["started", "completed"] for run in runs)
