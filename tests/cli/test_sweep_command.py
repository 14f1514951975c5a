"""Test `seqbench sweep` and its display."""

import io
import re
import textwrap
from types import SimpleNamespace

import pytest
from rich.console import Console

from seqbench.cli import sweep_view
from seqbench.cli.sweep import seconds
from seqbench.cli.sweep_view import Names, Terminal
from seqbench.errors import ConfigError
from seqbench.launch.job import Ending, Job
from seqbench.launch.progress import Progress
from seqbench.runs.run import Run

SMALL = [
    *("model=tcn", "model.channels=[4]", "model.kernel_size=3", "task=adding", "task.length=12"),
    *("task.train_size=32", "task.eval_size=16", "recipe=none", "threads=1", "device=cpu"),
    *("trainer.batch_size=8", "trainer.steps=8", "launch.workers=2"),
]
# What comes from elsewhere may look like markup.
CONFIG = {"choices": {"task": "adding", "model": "[/red]"}, "seed": 0}
RAISING = """
    import torch

    class Raising(torch.nn.Linear):
        def __init__(self, spec, trouble: bool = False) -> None:
            super().__init__(2, 1)
            self.trouble = trouble

        def forward(self, x):
            if self.trouble:
                raise LookupError("nothing there")
            return super().forward(x[:, -1])
"""


@pytest.fixture
def raising(tmp_path):
    (tmp_path / "raising.py").write_text(textwrap.dedent(RAISING))
    (tmp_path / "own" / "model").mkdir(parents=True)
    node = "_target_: raising.Raising\ntrouble: false\n"
    (tmp_path / "own" / "model" / "raising.yaml").write_text(node)
    words = [word for word in SMALL if not word.startswith("model")]
    return ["--config-dir", "own", "model=raising", *words]


def test_a_class_is_swept_together_with_packaged_models(seqbench, raising):
    code, out, err = seqbench("sweep", "model=gru,raising.Raising", *raising[3:], "trainer.steps=2")
    assert code == 0, err
    assert {line.split()[0] for line in out if line.strip()} >= {"gru", "raising.Raising"}


def test_a_sweep_ends_in_a_table_and_given_again_trains_nothing(seqbench):
    code, out, err = seqbench("sweep", *SMALL, "seed=0,1")
    assert code == 0
    assert out[0] == "Test scores"
    assert any(line.startswith("tcn") for line in out)
    ends = [line for line in err if line.startswith("[")]
    signs = [line for line in err if line not in ends]
    assert re.match(r"[0-2]/2 completed", signs[0])
    assert [line[:5] for line in ends] == ["[1/2]", "[2/2]"]
    told = sorted(line[6:].partition(" MSE")[0] for line in ends)
    assert told == [f"adding tcn seed={seed}: completed, test" for seed in (0, 1)]
    code, again, err = seqbench("train", "-m", *SMALL, "seed=0,1")
    assert (code, again, err) == (0, out, [])


def test_a_failure_is_told_with_its_reason_and_its_log(seqbench, raising, tmp_path):
    words = ["sweep", *raising, "model.trouble=true,false"]
    code, out, err = seqbench(*words)
    assert code == 1
    assert out[0] == "Test scores"
    logs = tmp_path.glob("outputs/runs/adding/raising/*/log.txt")
    [log] = [path for path in logs if "Traceback" in path.read_text()]
    told = (
        "adding raising trouble=True: failed: LookupError: nothing there "
        f"(see {log.relative_to(tmp_path)}); --retry runs it again"
    )
    assert told in err
    assert err[-1] == (
        "error: 1 of 2 runs are missing, 1 of them failed; --retry trains the failed runs again"
    )
    code, out, err = seqbench(*words, "--dry-run")
    assert code == 0
    assert out[0].startswith("failed      adding raising trouble=True   LookupError: nothing there")
    assert out[0].endswith("; --retry runs it again")
    assert err[1:] == ["1 failed, 1 completed: nothing to do"]
    assert seqbench(*words)[0] == 1, "it failed, and nobody asked for another try"
    assert seqbench(*words, "--retry")[0] == 1
    history = (log.parent / "history.jsonl").read_text()
    assert history.count('"failed"') == 2


def test_data_that_cannot_be_had_has_its_own_exit_code(seqbench):
    words = [word for word in SMALL if not word.startswith("task")]
    code, out, err = seqbench("sweep", *words, "task=char_file", "task.path=no.txt", "seed=0,1")
    assert (code, out) == (3, [])
    assert sum("failed: no.txt is not there" in line for line in err) == 3, "each, and all of them"
    assert err[-2].startswith("  the same: char_file tcn seed=")
    assert err[-1].endswith(
        "2 of 2 runs are missing, 2 of them failed; rerun the same command to resume"
    )


def test_when_its_time_is_up_it_says_so(seqbench):
    code, _, err = seqbench("sweep", *SMALL, "seed=0,1", "--max-time", "0s")
    assert code == 130
    assert err[0] == "0/2 completed, time limit reached"
    assert (
        err[1]
        == "error: time limit reached: 2 of 2 runs are missing; rerun the same command to resume"
    )


def test_a_dry_run_lists_what_there_is_to_do_and_what_it_costs(seqbench, tmp_path):
    def files():
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    seqbench("sweep", *SMALL, "seed=0")
    words = ["sweep", *SMALL, "model.channels=[4],[4,4]", "seed=0,1", "--dry-run"]
    before = files()
    code, out, err = seqbench(*words)
    assert (code, files()) == (0, before)
    assert out[0] == "completed   adding tcn channels=[4] seed=0"
    assert out[1].startswith("to run      adding tcn channels=[4] seed=1    about ")
    assert out[2:] == [
        "to run      adding tcn channels=[4,4] seed=0  cost unknown",
        "to run      adding tcn channels=[4,4] seed=1  cost unknown",
    ]
    assert err[-1].startswith("1 completed, 3 to run: about ")
    assert err[-1].endswith("s with 2 at a time, 2 runs without a cost estimate")
    assert seqbench(*words, "launch.worker=1")[0] == 2


def test_a_dry_run_tells_from_which_step_a_run_goes_on(seqbench, tmp_path):
    seqbench("sweep", *SMALL, "seed=0")
    [folder] = tmp_path.glob("outputs/runs/adding/tcn/*")
    (folder / "record.json").unlink()
    cut_off = '{"event": "interrupted", "step": 6}\n'
    (folder / "events.jsonl").write_text('{"step": 6, "split": "train", "loss": 1}\n')
    (folder / "history.jsonl").write_text('{"event": "started", "total_steps": 8}\n' + cut_off)
    code, out, err = seqbench("sweep", *SMALL, "seed=0", "--dry-run")
    assert (code, out) == (0, ["to resume   adding tcn  cost unknown, from step 6"])
    assert err[0].startswith("all with model.channels=[4] model.kernel_size=3 task.length=12 ")
    assert err[0].endswith(" trainer.steps=8 seed=0")
    assert err[1:] == ["1 to resume: 1 run without a cost estimate"]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["train", "--dry-run"], "--dry-run is for sweeps: add -m"),
        (["train", "launch=slurm"], "launch=slurm is for sweeps: add -m"),
        (["train", "--max-time", "8h"], "--max-time is for sweeps: add -m"),
        (["train", "-m", "--resume", "0123"], "-m is for sweeps: leave out --resume"),
        (["train", "-m", "--trust", "mine"], "--trust is for --resume"),
        (["train", "--resume", "0123", "--config-dir", "mine"], "--config-dir is not for --resume"),
        (["train", "seed=0,1"], "a run takes one seed, not '0,1': 'seqbench sweep' takes several"),
        (
            ["sweep", "model=tcm,gru"],
            "no model named 'tcm' (did you mean 'tcn'?) (in the job model=tcm)",
        ),
        (
            ["sweep", "model=tcn", "trainer.steps=abc"],
            "trainer.steps must be int or null, not 'abc' (in the job model=tcn trainer.steps=abc)",
        ),
        (["sweep", "launch=nosuch"], "no launch named 'nosuch'"),
        (["sweep", "search=1"], "no search named '1'"),
        (["sweep", "search.trials=3"], "search.trials=3 is for a search: 'seqbench sweep"),
        (
            ["sweep", "optimizer.lr=interval(1e-4,1)"],
            "optimizer.lr=interval(1e-4,1) is for a search: 'seqbench sweep",
        ),
        (["sweep", "model=NaN", "seed=0,1"], "no model named 'NaN'"),
        (["sweep", "model=tcn,lstm", "seed=range(5"], "cannot read seed=range(5: no viable"),
        (["sweep", "launch.worker=2"], "no key 'launch.worker' (did you mean 'launch.workers'?)"),
        (["sweep", "seed=choice("], "cannot read seed=choice(: no viable"),
        (["sweep", "seed=0,1,"], "cannot read seed=0,1,: "),
        (["train", "task.length='"], "cannot read task.length=': "),
        (["train", "optimizer.lr=interval(1,2)"], "optimizer.lr=interval(1,2) is for a search"),
        (["sweep", "hydra/sweeper=basic", "seed=interval(1,2)"], "seed=interval(1,2) is for a sea"),
    ],
)
def test_a_mistake_costs_a_line(seqbench, words, error):
    code, out, err = seqbench(*words)
    assert (code, out, len(err)) == (2, [], 1)
    assert err[0].startswith(f"error: {error}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90s", 90), ("30m", 1800), ("1h30m", 5400), ("0.5d", 43200), (None, None)],
)
def test_times_as_people_write_them(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "8", "h", "8 h", "-1s", "1w"])
def test_a_time_that_is_none_costs_a_line(text):
    with pytest.raises(ConfigError, match="90s, 30m, 8h or 1h30m"):
        seconds(text)


def job(tmp_path, *words, task="adding", model="tcn"):
    config = {"choices": {"task": task, "model": model}, "seed": 0}
    return Job(words, config, Run(tmp_path / "-".join(words)), tmp_path)


def test_jobs_are_named_by_what_tells_them_apart(tmp_path):
    jobs = [
        job(tmp_path, "model=tcn", "++seed=0", "++optimizer.lr=0.1", "budget=smoke"),
        job(tmp_path, "model=tcn", "++seed=1", "++optimizer.lr=0.1", "budget=smoke"),
    ]
    names = Names(jobs)
    assert [names.of(one) for one in jobs] == ["adding tcn seed=0", "adding tcn seed=1"]
    assert names.shared == "optimizer.lr=0.1 budget=smoke"
    # What some jobs alone set tells them apart.
    jobs.append(job(tmp_path, "model=tcn", "++seed=2", "budget=smoke"))
    names = Names(jobs)
    assert names.of(jobs[0]) == "adding tcn seed=0 lr=0.1"
    assert names.shared == "budget=smoke"


def test_keys_are_short_unless_that_makes_two_of_them_alike(tmp_path):
    words = [("++model.lr=1", "++optimizer.lr=1", "++task.size=1")]
    words += [("++model.lr=2", "++optimizer.lr=2", "++task.size=2")]
    jobs = [job(tmp_path, *some) for some in words]
    names = Names(jobs)
    assert names.of(jobs[0]) == "adding tcn model.lr=1 optimizer.lr=1 size=1"


def in_work(*progress, waiting=0, stopped=None):
    """Return a sweep with the attributes that the display reads."""
    jobs = {one.run.folder: Job(("seed=0",), CONFIG, one.run, one.run.folder) for one in progress}
    working = {one.run.folder: one for one in progress}
    return SimpleNamespace(
        jobs=jobs, running=working, waiting=[None] * waiting, held=[], stopped=stopped
    )


def test_the_time_left_follows_from_the_speed_until_runs_have_ended(tmp_path, monkeypatch):
    view = Terminal()
    runs = [Run(tmp_path / name) for name in "ab"]
    # Ten seconds each, two at a time: 5 seconds for each run that is left.
    working = [Progress(run, step=50, total_steps=100, speed=10.0) for run in runs]
    assert view.seconds_left(in_work(*working, waiting=3)) == pytest.approx(5 * (3 + 1))
    assert view.seconds_left(in_work(*working)) == pytest.approx(5)
    assert view.seconds_left(in_work(waiting=3)) is None
    view.trained = 3
    monkeypatch.setattr(sweep_view.time, "monotonic", lambda: view.begin + 80)
    assert view.seconds_left(in_work(*working, waiting=3)) == pytest.approx(80 / 4 * (3 + 1))


def test_a_log_gets_a_sign_of_life_now_and_then_and_what_stops_the_sweep(tmp_path, monkeypatch):
    view = Terminal()
    view.console = Console(file=io.StringIO(), width=200, highlight=False)
    now = 1000.0
    monkeypatch.setattr(sweep_view.time, "monotonic", lambda: now)
    progress = Progress(Run(tmp_path), 5, 10, 0.25, "accuracy", "max", 0.5, 2.0)
    for _ in range(121):
        view.look(in_work(progress))
        now += 1
    view.look(in_work(progress, stopped="interrupted"))
    lines = view.console.file.getvalue().splitlines()
    life = "  adding [/red]: step 5/10, loss 0.250, valid accuracy 50.0 %, speed 2.00/s, left 2.5 s"
    assert lines[:2] == ["0/0 completed, 1 running, about 2.5 s left", life]
    assert len(lines) == 2 * 4
    assert lines[-2].endswith("interrupted: writing checkpoints (Ctrl-C again: at once)")


def test_a_second_ctrl_c_costs_a_line(seqbench, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("seqbench.launch.sweep.Sweep.run_jobs", stop)
    assert seqbench("sweep", *SMALL) == (
        130,
        [],
        ["error: stopped at once; rerun the same command to resume from the last checkpoints"],
    )


@pytest.mark.parametrize(("width", "height"), [(120, 30), (80, 24), (50, 20)])
def test_a_picture_of_a_thousand_jobs_fits_into_the_terminal(tmp_path, monkeypatch, width, height):
    view = Terminal()
    view.console = Console(
        file=io.StringIO(), force_terminal=True, width=width, height=height, legacy_windows=False
    )
    jobs = [job(tmp_path, f"seed={i}", "x=\x1b[31m" + "y" * 200) for i in range(1000)]
    view.planned(jobs)
    for one in jobs[:30]:
        view.ended(one, Ending("failed", "a long \x1b[2J reason " * 20), found=False)
    working = {
        one.run.folder: Progress(one.run, 500, 10**6, 0.1, "mse", "min", 1e-4, 33.3)
        for one in jobs[30:100]
    }
    sweep = SimpleNamespace(
        jobs={one.run.folder: one for one in jobs},
        running=working,
        waiting=jobs[100:],
        held=[],
        stopped=None,
    )
    with view.console.capture() as captured:
        view.console.print(view.picture(sweep))
    lines = captured.get().splitlines()
    assert len(lines) < height
    text = sweep_view.Text.from_ansi(captured.get()).plain
    assert all(len(line) <= width for line in text.splitlines())
    assert "\x1b" not in text
    assert "70 running" in text
    assert "30 failed" in " ".join(text.split())
