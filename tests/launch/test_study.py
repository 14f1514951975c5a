"""Searches of one model: trials, repeats, pruning, interruptions."""

import csv
import json
import os
import shutil
import signal
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import yaml
from small_search import SEARCH, CutAfter, records, study_of
from small_sweep import Seen, history, sweep

from seqbench.errors import RunError, RunLocked
from seqbench.launch.progress import Progress
from seqbench.launch.sweep import Policy, View
from seqbench.runs.lock import holder
from seqbench.runs.run import Run

optuna = pytest.importorskip("optuna")
from seqbench.launch.study import Study, should_prune  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_a_search_that_was_cut_off_goes_on_and_loses_no_trial(tmp_path):
    words = [*SEARCH, f"output_dir={tmp_path}"]
    for ended in (1, 2):
        cut = sweep(words, view=CutAfter(ended))
        assert cut.stopped == "interrupted"
    assert len(records(tmp_path)) < 6
    done = sweep(words)
    states = [trial.state.name for trial in study_of(done, tmp_path).trials]
    assert states == ["COMPLETE"] * 6
    assert done.summary.startswith("gru on adding, best of 6 trials (6 completed): valid mse ")
    histories = [history(path.parent) for path in records(tmp_path)]
    # A run may be told to end after its record was written and before its history says so.
    assert [one for one in histories if one.count("started") + one.count("completed") > 2] == []


def test_a_search_that_another_machine_took_over_stops(tmp_path, monkeypatch):
    run = Study.run

    def lose(words):
        (lease,) = tmp_path.glob("sweeps/*/.lease")
        lease.write_text("process 42 on elsewhere")

    monkeypatch.setattr(Study, "run", lambda self, sweep, _: run(self, sweep, lose))
    words = [*SEARCH, f"output_dir={tmp_path}"]
    with pytest.raises(RunLocked, match="was taken over by process 42 on elsewhere"):
        sweep(words)
    study = study_of(sweep(words, policy=Policy(dry_run=True)), tmp_path)
    assert {trial.state.name for trial in study.trials} == {"RUNNING"}


def test_a_search_without_a_score_is_an_error_and_can_be_tried_again(tmp_path):
    words = [*(word for word in SEARCH if not word.startswith("optimizer.lr"))]
    words += ["optimizer.lr=1e30,1e31", "trainer.clip=null", "search.trials=2"]
    for _ in range(2):
        for policy in (Policy(), Policy(fail_fast=True)):
            with pytest.raises(RunError, match="none of 2 trials of gru on adding completed"):
                sweep([*words, f"output_dir={tmp_path}"], policy=policy)
    view = Seen()
    with pytest.raises(RunError, match="none of 4 trials of gru on adding completed: 4 failed"):
        sweep([*words, f"output_dir={tmp_path}"], policy=Policy(retry=True), view=view)
    assert [(how, found) for _, how, found in view.ends] == [("diverged", False)] * 2


class StopsTheFirst(View):
    """Send SIGTERM to a running job while the search goes on."""

    def look(self, sweep):
        if sweep.running and not sweep.endings:
            folder = next(iter(sweep.running))
            words = holder(folder / ".lease").split()
            if words[0] == "process":
                os.kill(int(words[1]), signal.SIGTERM)
                Path("hurry").touch()


def test_a_run_that_was_interrupted_alone_ends_the_search_for_now(slow):
    words = [*slow, "optimizer.lr=tag(log,interval(1e-4,1e-1))", "search=optuna"]
    words += ["search.trials=2", "search.pruner=none", "launch.workers=2"]
    cut = sweep(words, "own", view=StopsTheFirst())
    assert cut.stopped == "a run was interrupted"
    states = [trial.state.name for trial in study_of(cut, Path("out")).trials]
    assert "RUNNING" in states
    assert "best of 2 trials (2 completed)" in sweep(words, "own").summary


def test_settings_that_were_not_all_drawn_are_drawn_when_it_goes_on(tmp_path):
    words = [*SEARCH, "search.trials=1", f"output_dir={tmp_path}"]
    folder = tmp_path / "sweeps" / sweep(words, policy=Policy(dry_run=True)).id
    folder.mkdir(parents=True)
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "optuna.log"))
    storage = optuna.storages.JournalStorage(backend)
    study = optuna.create_study(storage=storage, study_name="search", direction="minimize")
    study.ask({"model.hidden_size": optuna.distributions.CategoricalDistribution(["4", "6"])})
    [trial] = study_of(sweep(words), tmp_path).trials
    assert trial.params.keys() == {"model.hidden_size", "optimizer.lr"}


def test_a_search_of_which_the_best_run_is_gone_still_knows_its_settings(tmp_path):
    words = [*SEARCH, "search.trials=2", f"output_dir={tmp_path}"]
    done = sweep(words)
    shutil.rmtree(tmp_path / "runs")
    assert sweep(words).summary == done.summary


@pytest.fixture(params=["min", "max"])
def repeating(request, tmp_path):
    """A search of a score to be minimized or maximized, with repeats, as words."""
    words = [*SEARCH, "search.trials=4", "search.finalists=2", "search.repeats=2", "seed=5"]
    if request.param == "max":
        draw = np.random.default_rng(0)
        arrays = {"x": draw.normal(size=(60, 5, 1)), "y": draw.integers(3, size=60)}
        np.savez(tmp_path / "my.npz", **arrays)
        words = [word for word in words if not word.startswith("task")]
        words += ["task=classify_file", f"task.path={tmp_path / 'my.npz'}"]
    return [*words, f"output_dir={tmp_path}"]


def test_the_best_trials_are_repeated_and_the_best_mean_is_chosen(repeating, tmp_path):
    done = sweep(repeating)
    study = study_of(done, tmp_path)
    maximize = study.direction.name == "MAXIMIZE"
    name = "classify_file_gru" if maximize else "adding_gru"
    place = tmp_path / "sweeps" / done.id / "recipe"
    rows = list(csv.DictReader((place / f"{name}.trials.csv").open()))
    metric = next(key for key in rows[0] if key.startswith("valid_"))
    scores = [float(row[metric]) for row in rows]
    finalists = [float(row[metric]) for row in rows if row["mean"]]
    assert sorted(finalists, reverse=maximize) == sorted(scores, reverse=maximize)[:2]

    # The columns hold what the records say of the same settings.
    of_seed = {}
    for job in done.jobs.values():
        settings = job.config["model"]["hidden_size"], job.config["optimizer"]["lr"]
        valid = job.run.record.metrics["valid"][job.run.record.score.metric]
        of_seed.setdefault(settings, {})[job.config["seed"]] = valid
    assert sorted(map(len, of_seed.values())) == [1, 1, 3, 3]
    means = {}
    for row in (row for row in rows if row["mean"]):
        settings = int(row["model.hidden_size"]), float(f"{float(row['optimizer.lr']):.4g}")
        assert of_seed[settings] == {seed: float(row[f"seed={seed}"]) for seed in (5, 6, 7)}
        means[settings] = fmean(of_seed[settings].values())
        assert float(row["mean"]) == means[settings]

    recipe = yaml.safe_load((place / f"{name}.yaml").read_text())
    assert recipe["recipe"]["source"].endswith("; best mean of 2 trials with 3 seeds")
    best = recipe["model"]["hidden_size"], recipe["recipe"]["optimizer"]["lr"]
    assert means[best] == recipe["recipe"]["expected"]["value"]
    assert means[best] == (max if maximize else min)(means.values())
    assert ", mean of 3 seeds\n" in done.summary
    again = sweep(repeating)
    assert again.summary == done.summary
    assert [found for _, _, found in again.view.ends] == [True] * 4


def test_a_search_that_was_cut_off_while_it_repeats_goes_on(tmp_path):
    words = [word for word in SEARCH if not word.startswith("launch")]
    words += ["launch.workers=1", "search.trials=2", "search.repeats=1", f"output_dir={tmp_path}"]
    plan = sweep(words, policy=Policy(dry_run=True)).summary
    assert plan == "then the 2 best with 1 further seed each"
    cut = sweep(words, view=CutAfter(3))
    assert cut.stopped == "interrupted"
    assert "; the best trials are not all repeated yet\n" in cut.summary
    assert len(records(tmp_path)) < 4
    dry = sweep(words, policy=Policy(dry_run=True))
    assert (len(dry.jobs), dry.summary) == (2, None), "all that is left is known"
    done = sweep(words).summary
    assert "mean of 2 seeds" in done
    assert done.splitlines()[-1].endswith("'seed=range(2,7)'"), "seeds that were not used"
    assert len(records(tmp_path)) == 4


def fail(path):
    """Turn the record of a completed run into that of a failed one."""
    record = json.loads(path.read_text())
    record |= {"status": "failed", "reason": "out of memory"}
    path.write_text(json.dumps(record))


def test_a_trial_that_failed_with_a_further_seed_is_not_chosen(tmp_path):
    words = [*SEARCH, "search.trials=2", "search.repeats=1", f"output_dir={tmp_path}"]
    done = sweep(words)
    best = study_of(done, tmp_path).best_trial.number
    further = [job for job in done.jobs.values() if job.config["seed"] == 1]
    rate = float(f"{study_of(done, tmp_path).best_params['optimizer.lr']:.4g}")
    of_best, other = sorted(further, key=lambda job: job.config["optimizer"]["lr"] != rate)
    fail(of_best.run.record_path)
    found = sweep(words)
    assert f"; without trial {best}, which failed with a further seed\n" in found.summary
    place = tmp_path / "sweeps" / done.id / "recipe"
    recipe = yaml.safe_load((place / "adding_gru.yaml").read_text())
    assert recipe["recipe"]["optimizer"]["lr"] == other.config["optimizer"]["lr"]
    rows = list(csv.DictReader((place / "adding_gru.trials.csv").open()))
    assert rows[best]["seed=0"]
    assert rows[best]["seed=1"] == rows[best]["mean"] == ""

    fail(other.run.record_path)
    with pytest.raises(RunError, match="of the 2 best trials of gru on adding, none completed"):
        sweep(words)
    recipe = yaml.safe_load((place / "adding_gru.yaml").read_text())
    assert recipe["recipe"]["optimizer"]["lr"] == rate, "the best single run"
    assert sweep(words, policy=Policy(retry=True)).summary == done.summary


def test_a_run_without_prospects_is_stopped(slow):
    """The pruner is asked while runs train; a run that it stops counts as pruned."""

    class Hurry(View):
        def ended(self, job, ending, found):
            Path("hurry").touch()

    done = sweep(
        [*slow, "seed=0,1", "launch.workers=2"],
        "own",
        view=Hurry(),
        prune=lambda job, progress: progress.step >= 10 and job.config["seed"] == 0,
    )
    ends = {job.config["seed"]: done.endings[at] for at, job in done.jobs.items()}
    assert {seed: ending.how for seed, ending in ends.items()} == {0: "pruned", 1: "completed"}
    assert int(ends[0].reason.removeprefix("pruned at step ")) >= 10


@pytest.mark.filterwarnings("error")
def test_a_score_is_reported_once_at_the_step_of_its_evaluation(tmp_path):
    study = optuna.create_study()
    trial = study.ask()
    run = Run(tmp_path)
    run.history_path.write_text('{"event": "start", "metric": "loss", "total_steps": 9}\n')
    train = '{"step": %d, "split": "train", "loss": 1.0}\n'
    run.events_path.write_text(train % 2)
    progress = Progress(run)
    for event in ("", '{"step": 3, "split": "valid", "loss": 0.5}\n', train % 4, train % 5):
        with run.events_path.open("a") as file:
            file.write(event)
        should_prune(trial, progress.look())
    assert study.trials[0].intermediate_values == {3: 0.5}
