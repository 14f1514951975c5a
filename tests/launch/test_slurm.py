"""Test the SLURM engine on a real cluster of two nodes on this machine."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from commands import forked
from patience import until
from small_sweep import SMALL, Once, Seen, history, kept, launcher, press, sweep

from seqbench.config.compose import compose
from seqbench.errors import ConfigError, RunError
from seqbench.launch import slurm, slurm_job, slurm_queue
from seqbench.launch.job import Ending, Job
from seqbench.launch.slurm import SlurmEngine
from seqbench.launch.slurm_job import Ticket, noted
from seqbench.launch.sweep import Policy
from seqbench.runs.run import Run

SCRIPT = Path(__file__).parents[2] / "scripts" / "slurm_cluster.sh"
NEEDED = ("slurmctld", "slurmd", "sbatch", "munged")


@pytest.fixture(scope="module")
def cluster():
    """Start a cluster, and yield a function that sends it commands."""
    pytest.importorskip("submitit")
    path = f"{os.environ['PATH']}:/usr/sbin"
    if missing := [name for name in NEEDED if shutil.which(name, path=path) is None]:
        pytest.skip(f"no {', '.join(missing)} here: apt-get install slurm-wlm munge")
    # The path of a socket is short, and pytest's own folders are deep.
    folder = tempfile.mkdtemp(prefix="slurm")

    def tell(command, *words):
        subprocess.run([SCRIPT, command, folder, *words], check=True, timeout=60)

    port = 20000 + 3 * (os.getpid() % 4000)
    tell("start", str(port))
    os.environ["SLURM_CONF"] = f"{folder}/slurm.conf"
    yield tell
    tell("stop")
    del os.environ["SLURM_CONF"]
    shutil.rmtree(folder)


@pytest.fixture
def asked(cluster, slow):
    """Return a function that sweeps over slow runs in the current folder."""
    yield lambda *words, **how: sweep([*slow, *ON_SLURM, *words], "own", **how)
    until(is_idle)


def is_idle():
    """Cancel all jobs, and return True if none is left; a job may requeue itself in between."""
    subprocess.run(["scancel", "--me"], check=True)
    return not queue() and len(nodes("idle")) == 2


ON_SLURM = ["launch=slurm", "launch.poll=1"]


def told(*command):
    """Return the lines that a command prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def queue(*states):
    """Return the ids of the jobs in the queue."""
    return told("squeue", "--me", "-h", "-r", "-o%i", *(f"-t{state}" for state in states))


def places():
    """Return index in the array and node of each running job."""
    return [line.split() for line in told("squeue", "--me", "-h", "-o%K %N", "-tRUNNING")]


def nodes(state):
    return told("sinfo", "-h", "-N", "-o%N", f"-t{state}")


def submitted():
    """Return all jobs that the sweeps of this folder submitted."""
    return list(Path("out/sweeps/slurm").glob("seqbench-*/*_submitted.pkl"))


def find(name):
    return sorted(Path("out").glob(f"runs/*/*/*/{name}"))


def runs():
    return [path.parent for path in find("config.yaml")]


def steps_resumed(folder):
    lines = [json.loads(line) for line in (folder / "history.jsonl").open()]
    return [line["step"] for line in lines if line["event"] == "resumed"]


def hows(swept):
    return [swept.endings[folder].how for folder in swept.jobs if folder in swept.endings]


@pytest.mark.slurm
def test_a_power_cut_and_a_time_limit_cost_time_and_nothing_else(asked, cluster, slow):
    """SLURM requeues one job; the other is warned and requeues itself."""

    class Storm(Seen):
        cut = False

        def look(self, sweep):
            dead, late = sweep.jobs
            if not self.cut and dead in sweep.running and sweep.running[dead].step >= 10:
                self.cut = True
                [node] = [node for index, node in places() if index == "0"]
                cluster("nodedown", node)
                cluster("nodeup", node)  # else SLURM would take half a minute to miss it
            elif late in runs() and "interrupted" in history(late):
                Path("hurry").touch()

    # The warning comes 20 to 50 seconds after the start, by SLURM's own clock. On a slow machine,
    # a job may be warned several times before it can listen.
    limits = ["launch.minutes=1", "launch.warning=10", "launch.max_requeue=100"]
    swept = asked("seed=0,1", *limits, view=Storm())
    assert hows(swept) == ["completed"] * 2
    dead, late = swept.jobs
    assert history(dead)[:2] == ["started", "resumed"]
    assert history(late)[:3] == ["started", "interrupted", "resumed"]
    assert min(steps_resumed(dead) + steps_resumed(late)) > 0
    assert len(submitted()) == 2
    sweep([*slow, "seed=0,1", "output_dir=undisturbed"], "own", here=True)
    assert kept(Path("out")) == kept(Path("undisturbed"))
    assert len(kept(Path("out"))) == 2


@pytest.mark.slurm
def test_jobs_outlive_the_launcher_and_are_submitted_once(asked, slow, tmp_path):
    left = asked("seed=0,1", policy=Policy(wait=False))
    assert hows(left) == []
    assert len(queue()) == 2
    asked("seed=0,1", policy=Policy(wait=False))
    assert len(queue()) == 2
    killed = launcher([*ON_SLURM, *slow, "seed=0,1"], tmp_path).process
    [asked_for] = Path("out").glob("sweeps/*/sweep.jsonl")
    try:
        until(lambda: len(asked_for.read_text().splitlines()) == 3)
    finally:
        killed.kill()
        killed.join()
    Path("hurry").touch()
    wider = asked("seed=0,1,2")
    assert hows(wider) == ["completed"] * 3
    assert [history(folder) for folder in runs()] == [["started", "completed"]] * 3
    assert len(submitted()) == 3


@pytest.mark.slurm
def test_stopped_once_it_keeps_checkpoints_and_twice_it_ends_at_once(asked):
    words = ["trainer.checkpoint_every=5000", "seed=0,1,2"]
    stopped = asked(*words, view=Once(press(1)))
    assert stopped.stopped == "interrupted"
    assert hows(stopped) == ["interrupted"] * 3
    assert [history(folder) for folder in runs()] == [["started", "interrupted"]] * 2
    until(lambda: not queue())
    with pytest.raises(KeyboardInterrupt):
        asked(*words, view=Once(press(2), step=40))
    until(lambda: not queue())
    resumed = [step for folder in runs() for step in steps_resumed(folder)]
    assert len(resumed) == 2
    assert min(resumed) >= 10
    assert kept(Path("out")) == {}


@pytest.mark.slurm
def test_what_becomes_of_jobs_that_are_cancelled_or_fail_or_have_no_prospects(asked):
    """Each is one ending; no job is requeued, and the others are trained."""

    def cancel(sweep):
        [first, *_] = queue("RUNNING")
        subprocess.run(["scancel", first, queue("PENDING")[-1]], check=True)

    class Patient(Once):
        def look(self, sweep):
            super().look(sweep)
            if any(ending.how == "pruned" for ending in sweep.endings.values()):
                Path("hurry").touch()

    view = Patient(cancel)
    swept = asked(
        "seed=0,1,2,3",
        view=view,
        prune=lambda job, progress: view.deed is None and job.config["seed"] == 1,
    )
    ends = {job.config["seed"]: swept.endings[folder] for folder, job in swept.jobs.items()}
    assert [ends[seed].how for seed in range(4)] == ["killed", "pruned", "completed", "killed"]
    assert ends[0].reason == "SLURM says CANCELLED"
    assert ends[3].reason == "gone from SLURM's queue, where it was PENDING"
    assert history(next(f for f, job in swept.jobs.items() if job.config["seed"] == 0))[-1] == (
        "interrupted"
    )
    assert len(submitted()) == 4
    [failed] = asked("model.deed=raise").endings.values()
    assert (failed.how, failed.reason) == ("failed", "LookupError: nothing there")
    assert len(submitted()) == 5


@pytest.mark.slurm
def test_warned_before_it_listens_a_job_goes_back_to_the_queue(asked):
    asked(policy=Policy(wait=False))
    begins = "Loading pickle"
    logs = Path("out/sweeps/slurm").glob
    until(lambda: any(begins in path.read_text() for path in logs("*/*_log.out")))
    told("scancel", "--signal=USR2", *queue("RUNNING"))
    until(lambda: queue("PENDING"))
    assert runs() == []


@pytest.mark.slurm
def test_what_slurm_refuses_costs_a_line(asked):
    with pytest.raises(ConfigError, match=r"^sbatch refuses the jobs: .*partition") as error:
        asked("launch.partition=nowhere")
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="sbatch refuses the jobs: "):
        asked("launch.sbatch.no-such-option=1")


SETTINGS = {
    "minutes": 10,
    "warning": 60,
    "setup": [],
    "sbatch": {},
    **dict.fromkeys(("partition", "account", "qos", "gpus", "memory")),
    **dict.fromkeys(("cpus", "max_requeue", "queue", "array_parallelism", "poll"), 2),
}


@pytest.mark.parametrize("name", ["cpus", "minutes", "warning", "queue", "poll", "gpus"])
def test_settings_that_cannot_be_cost_a_line(name):
    with pytest.raises(ConfigError, match=rf"launch.{name} must be positive, not -1"):
        SlurmEngine(**SETTINGS | {name: -1})


def test_a_warning_leaves_time_to_train():
    with pytest.raises(ConfigError, match=r"launch.warning=600 seconds leave nothing"):
        SlurmEngine(**SETTINGS | {"warning": 600})


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="there is no sbatch here"):
        SlurmEngine(**SETTINGS)
    fake_commands(tmp_path, monkeypatch)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ConfigError, match=r"pip install 'seqbench\[slurm\]'"):
        SlurmEngine(**SETTINGS)


def fake_commands(folder, monkeypatch):
    """Create files named like SLURM's commands on the PATH."""
    monkeypatch.setenv("PATH", str(folder))
    for name in ("sbatch", "srun", "squeue", "scancel"):
        (folder / name).touch(mode=0o755)


@pytest.fixture
def job(tmp_path, request):
    words = [*SMALL, "threads=null", f"output_dir={tmp_path}", *getattr(request, "param", [])]
    config = compose([word for word in words if word != "threads=1"])
    return Job((), config, Run.of(config), tmp_path / "sweeps" / "id" / "job.txt")


@pytest.fixture
def ticket(job):
    """Return the ticket of a SLURM job to which the run is assigned."""
    home = slurm.home_of(job)
    made = Ticket("seqbench-1", 3, home / f"{job.run.run_id}.json")
    made.ending.parent.mkdir(parents=True)
    job.output.parent.mkdir(parents=True)
    made.write()
    return made


def on_node(job, ticket, during=lambda process: None, **environment):
    """Run a job as a node does, in a process of its own."""
    process = forked(node, job, ticket, environment)
    during(process)
    process.join()
    return slurm_job.read_ending(ticket.ending)


def node(job, ticket, environment):
    os.environ.update(environment)
    slurm_job.run_on_node(job, ticket, threads=2, max_requeue=2)


def test_a_job_says_how_it_ended(job, ticket):
    ending = on_node(job, ticket)
    assert ending == Ending("completed", score=job.run.record.score.value)
    assert job.run.record.measured["threads"] == 2, "as many as it has cores"
    assert not job.output.exists(), "it printed nothing"


def test_a_job_that_was_given_up_trains_nothing(job, ticket):
    Ticket("seqbench-2", 0, ticket.note).write()
    assert not ticket.is_current()
    assert on_node(job, ticket).how == "interrupted"
    assert not job.run.folder.exists()


@pytest.mark.parametrize("job", [["trainer.steps=100000"]], indirect=True)
def test_a_job_goes_back_to_the_queue_so_often_and_not_more(job, ticket):
    def warn(process):
        until(job.run.events_path.exists)
        os.kill(process.pid, signal.SIGUSR2)

    ending = on_node(job, ticket, warn, SLURM_RESTART_COUNT="2")
    assert ending.how == "interrupted"
    assert "a checkpoint was written" in ending.reason
    assert ending.reason.endswith("back to the queue 2 times already: raise launch.max_requeue")
    assert history(job.run.folder) == ["started", "interrupted"]


def test_forced_again_a_run_starts_over_once(job, ticket):
    """A requeued job resumes from its checkpoint."""
    assert not slurm_job.begun(job, ticket)
    job.run.folder.mkdir(parents=True)
    job.run.append_history("started", step=0)
    assert slurm_job.begun(job, ticket)
    os.utime(ticket.note, (time.time() + 10, time.time() + 10))
    assert not slurm_job.begun(job, ticket), "that was before it was submitted"


def test_a_note_that_is_damaged_names_no_job(ticket):
    assert noted(ticket.note) == ticket
    for content in (b"", b"[]", b'{"name": "x"}', b"\xff"):
        ticket.note.write_bytes(content)
        assert noted(ticket.note) is None
    ticket.note.unlink()
    assert noted(ticket.note) is None


def test_the_ending_of_a_job_that_said_nothing(job, ticket):
    work = slurm.Work(ticket, ticket.note.stat().st_mtime)
    assert slurm.lost(job, work) == Ending("killed", "gone from SLURM's queue")
    work.entry = slurm_queue.QueueEntry("7_3", "OUT_OF_MEMORY")
    log = ticket.folder / "7_3_0_log.err"
    log.write_text("Killed")
    reason = "SLURM says OUT_OF_MEMORY: raise launch.memory"
    assert slurm.lost(job, work) == Ending("killed", reason, log)
    work.stopping = "checkpoint"
    assert slurm.lost(job, work).how == "interrupted"
    on_node(job, ticket)
    assert slurm.lost(job, work).how == "completed", "its record is the truth"
    work.since = time.time() + 10
    assert slurm.lost(job, work).how == "interrupted", "that record is an older one"


def test_a_stop_that_slurm_does_not_answer_is_repeated(job, ticket, tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    fake_commands(tmp_path, monkeypatch)
    sent, is_down = [], True

    def ask(command):
        if is_down:
            raise RunError("SLURM does not answer")
        sent.append(command)
        return f"{ticket.name}|3|7_3|RUNNING\n" if command[0] == "squeue" else ""

    monkeypatch.setattr(slurm_queue, "ask_slurm", ask)
    engine = SlurmEngine(**SETTINGS)
    engine.works[job] = slurm.Work(ticket, ticket.note.stat().st_mtime)
    engine.stop([job], now=False)
    assert not ticket.note.exists()
    is_down = False
    assert list(engine.ended(0)) == []
    assert sent[-1] == ["scancel", "--quiet", "--state=RUNNING", "--signal=TERM", "7_3"]
    sent.clear()
    engine.last_query = float("-inf")
    assert list(engine.ended(0)) == []
    assert [command[0] for command in sent] == ["squeue"]
    engine.stop([job], now=True)
    assert sent[-1] == ["scancel", "--quiet", "7_3"]
