"""Searches of one or several models with real runs in local processes."""

import csv
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from small_search import SEARCH, CutAfter, records, study_of
from small_sweep import SMALL, sweep

from seqbench.config.choices import CONFIG_FOLDER
from seqbench.config.compose import Composer, compose
from seqbench.errors import ConfigError, RunLocked
from seqbench.launch.sweep import Policy
from seqbench.runs import lock
from seqbench.runs.run import Run

optuna = pytest.importorskip("optuna")


DRY = Policy(dry_run=True)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_the_recipe_keeps_what_the_one_in_force_says(tmp_path):
    """A found recipe keeps settings of the pair's own recipe, and those that all trials share."""
    words = [word for word in SMALL if not word.startswith(("model", "recipe", "optimizer"))]
    searched = ["optimizer.lr=tag(log,interval(1e-4,1e-1))", "search=optuna", "search.trials=1"]
    more = ["model=gru", "search.pruner=none", f"output_dir={tmp_path}"]
    done = sweep([*words, *more, *searched, "trainer.clip=0.7", "model.num_layers=1"])
    (job,) = done.jobs.values()
    place = tmp_path / "sweeps" / done.id
    again = compose([*words, "model=gru", f"output_dir={tmp_path}"], str(place))
    assert Run.of(again).run_id == job.run.run_id
    assert "Cosine" in again["schedule"]["_target_"]
    last = done.summary.splitlines()[-1]
    assert Run.of(compose(shlex.split(last)[4:], str(place))).run_id == job.run.run_id


def test_settings_that_belong_together_are_searched_as_recipes(tmp_path):
    """A recipe that was chosen among several is part of the recipe that is found."""
    mine = tmp_path / "mine" / "recipe"
    mine.mkdir(parents=True)
    for layers, units in ((1, 6), (2, 4)):
        node = f"model: {{num_layers: {layers}, hidden_size: {units}}}"
        (mine / f"layers{layers}.yaml").write_text(f"# @package _global_\n{node}\n")
    words = [word for word in SMALL if not word.startswith(("model", "recipe"))]
    words += ["model=gru", "recipe=layers1,layers2", "optimizer=adam", "search=optuna"]
    words += ["search.space=none", "search.pruner=none", "search.trials=2"]
    words += ["optimizer.lr=tag(log,interval(1e-4,1e-1))"]
    done = sweep([*words, f"output_dir={tmp_path}"], str(mine.parent))
    found = yaml.safe_load((tmp_path / "sweeps" / done.id / "recipe/adding_gru.yaml").read_text())
    shapes = {job.run.run_id: job.config["model"]["num_layers"] for job in done.jobs.values()}
    assert (found["model"]["num_layers"], found["model"]["hidden_size"]) in {(1, 6), (2, 4)}
    last = done.summary.splitlines()[-1]
    again = compose(shlex.split(last)[4:], str(tmp_path / "sweeps" / done.id))
    assert shapes[Run.of(again).run_id] == found["model"]["num_layers"]


@pytest.fixture
def two_models(tmp_path):
    """A search of two models with search spaces of their own, as words, and their folder."""
    spaces = tmp_path / "mine" / "search_space"
    spaces.mkdir(parents=True)
    for model, rates in (("gru", "1e-3,1e-2"), ("lstm", "2e-3,2e-2")):
        (spaces / f"{model}.yaml").write_text(f"optimizer.lr: {rates}\n")
    words = [word for word in SMALL if not word.startswith(("model", "recipe"))]
    words += ["model=gru,lstm", "model.hidden_size=4", "optimizer=adam", "search=optuna"]
    words += ["search.trials=2", "search.pruner=none", f"output_dir={tmp_path}"]
    return words, spaces.parent


def test_each_model_has_a_search_of_its_own(two_models, tmp_path):
    words, mine = two_models
    dry = sweep(words, str(mine), policy=Policy(dry_run=True))
    assert [job.config["choices"]["model"] for job in dry.jobs.values()] == ["gru"] * 2 + [
        "lstm"
    ] * 2
    done = sweep(words, str(mine))
    assert len(done.jobs) == 4
    chosen = {}
    for model in ("gru", "lstm"):
        jobs = [job for job in done.jobs.values() if job.config["choices"]["model"] == model]
        best = min(jobs, key=lambda job: job.run.record.metrics["valid"]["mse"])
        chosen[model] = best.run.run_id
    folder = tmp_path / "sweeps" / done.id
    assert {path.stem for path in folder.glob("recipe/*.yaml")} == {"adding_gru", "adding_lstm"}
    command = shlex.split(done.summary.splitlines()[-1])
    assert command[:5] == ["seqbench", "sweep", "--config-dir", str(mine), "model=gru,lstm"]
    for model, run_id in chosen.items():
        again = compose([f"model={model}", *command[5:]], str(folder))
        assert Run.of(again).run_id == run_id
    alone = [word.replace("gru,lstm", "gru") for word in words]
    assert sweep(alone, str(mine)).jobs == {}, "the same search, which is over"


def test_a_search_that_fails_leaves_the_others_their_result(two_models, tmp_path):
    words, mine = two_models
    for model, rates in (("gru", "1e30,1e31"), ("rnn", "1e-3,1e-2")):
        (mine / "search_space" / f"{model}.yaml").write_text(f"optimizer.lr: {rates}\n")
    words, alone = (
        [word.replace("gru,lstm", models) for word in [*words, "trainer.clip=null"]]
        for models in ("gru,rnn,lstm", "rnn")
    )
    folder = tmp_path / "sweeps" / sweep(alone, str(mine), DRY).id
    folder.mkdir(parents=True)
    with lock.held(folder, "this search"):
        done = sweep(words, str(mine))
    lines = done.summary.splitlines()
    assert lines[0].startswith("lstm on adding, best of 2 trials (2 completed): ")
    assert lines[-2].startswith("none of 2 trials of gru on adding completed: 2 failed")
    assert lines[-1].startswith("the search of rnn on adding is being trained by process")
    assert str(done.error) == "2 of 3 searches found nothing"


def test_the_last_lines_train_a_model_of_the_users_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "my choices"
    (mine / "model").mkdir(parents=True)
    (mine / "model" / "mine.yaml").write_text((CONFIG_FOLDER / "model" / "gru.yaml").read_text())
    words = [word for word in SMALL if not word.startswith(("model", "recipe"))]
    words += [
        "model=glob(min*)",
        "model.hidden_size=4",
        "optimizer=adam",
        "optimizer.lr=1e-3,1e-2",
        "search=optuna",
    ]
    done = sweep([*words, "search.trials=2", "search.pruner=none"], "my choices")
    lines = done.summary.splitlines()
    subprocess.run(lines[-2], shell=True, check=True)
    best = min(done.jobs.values(), key=lambda job: job.run.record.metrics["valid"]["mse"])
    for line in (lines[1], lines[-1]):
        command = shlex.split(line)
        assert command[:4] == ["seqbench", "train", "--config-dir", "my choices"]
        assert Run.of(compose(command[4:], "my choices")).run_id == best.run.run_id


def test_a_length_of_training_is_searched(tmp_path):
    words = [word for word in SEARCH if not word.startswith(("trainer.steps", "search.trials"))]
    words += ["trainer.epochs=1,2", "search.trials=2", f"output_dir={tmp_path}"]
    done = sweep(words, policy=DRY)
    assert {job.config["trainer"]["epochs"] for job in done.jobs.values()} <= {1, 2}


def test_what_cannot_be_searched_is_an_error_before_the_first_search(two_models):
    words, mine = two_models
    (mine / "search_space" / "lstm.yaml").write_text("model.chanels: 1,2\n")
    with pytest.raises(ConfigError, match="chanels"):
        sweep(words, str(mine))
    assert not records(mine.parent)


def test_a_search_finds_what_its_recipe_repeats(tmp_path):
    words = [*SEARCH, f"output_dir={tmp_path}"]
    done = sweep(words)
    study = study_of(done, tmp_path)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 6
    for trial in study.trials:
        assert trial.params.keys() == {"model.hidden_size", "optimizer.lr"}
        assert 1e-4 <= trial.params["optimizer.lr"] <= 1e-1
    # What Optuna was told is the score on validation, in the record of the run.
    kept = [job.run.record for job in done.jobs.values()]
    scores = sorted(record.metrics["valid"]["mse"] for record in kept)
    assert scores[0] == study.best_value

    best = next(r for r in kept if r.metrics["valid"]["mse"] == study.best_value)
    place = tmp_path / "sweeps" / done.id
    fixed = [word for word in SMALL if not word.startswith(("model", "recipe"))]
    again = compose([*fixed, "model=gru"], str(place))
    for node in ("model", "optimizer"):
        assert again[node].items() >= best.config[node].items()
    rows = list(csv.DictReader((place / "recipe" / "adding_gru.trials.csv").open()))
    assert len(rows) == 6
    assert min(float(row["valid_mse"]) for row in rows) == study.best_value
    recipe = yaml.safe_load((place / "recipe" / "adding_gru.yaml").read_text())
    assert recipe["recipe"]["expected"]["value"] == study.best_value

    command = next(line for line in done.summary.splitlines() if "model.hidden_size" in line)
    typed = shlex.split(command)[2:]
    assert compose(typed)["model"] == best.config["model"] | {"_partial_": True}

    elsewhere = ["launch.workers=1", "++threads=2", "trainer.log_every=5", "search.sampler=random"]
    once_more = sweep([*words, *elsewhere])
    assert once_more.jobs == {}, "all trials are done"
    assert once_more.summary.startswith(done.summary.splitlines()[0])
    wider = sweep([word.replace("trials=6", "trials=7") for word in words])
    assert len(wider.jobs) == 1
    assert [sweep_of.id for sweep_of in (once_more, wider)] == [done.id] * 2
    others = [word.replace("4,6", "4,6,8") for word in words]
    assert sweep(others, policy=Policy(dry_run=True)).id != done.id


def test_a_dry_run_changes_nothing(tmp_path):
    words = [*SEARCH, "search.parallel=2", f"output_dir={tmp_path}"]
    dry = sweep(words, policy=Policy(dry_run=True))
    assert len(dry.jobs) == 2
    assert dry.summary == "2 of 6 trials; the settings of the other 4 follow from how they end"
    assert list(tmp_path.iterdir()) == []
    cut = sweep(words, view=CutAfter(3))
    path = tmp_path / "sweeps" / cut.id / "optuna.log"
    before = path.read_bytes()
    first, again = (sweep(words, policy=Policy(dry_run=True)) for _ in range(2))
    assert first.summary == again.summary
    assert path.read_bytes() == before


def test_of_two_at_once_the_second_says_who_is_at_it(tmp_path):
    words = [*SEARCH, f"output_dir={tmp_path}"]
    folder = tmp_path / "sweeps" / sweep(words, policy=Policy(dry_run=True)).id
    folder.mkdir(parents=True)
    with lock.held(folder, "this search"), pytest.raises(RunLocked, match="trained by process"):
        sweep(words)


def test_both_commands_that_it_advises_train_the_same(tmp_path):
    words = [word for word in SEARCH if word != "optimizer=adam"]
    done = sweep([*words, "optimizer=sgd", "search.trials=2", f"output_dir={tmp_path}"])
    plain, with_recipe = (shlex.split(line)[2:] for line in done.summary.splitlines()[1::2])
    folder = with_recipe[with_recipe.index("--config-dir") + 1]
    composer = Composer(folder)
    again = composer.compose([w for w in with_recipe if w not in ("--config-dir", folder)])
    best = compose(plain)
    for node in ("model", "optimizer", "trainer", "task"):
        assert again[node] == best[node]


@pytest.mark.parametrize("policy", [Policy(force=True), Policy(wait=False)])
def test_what_makes_no_sense_for_a_search_is_refused(tmp_path, policy):
    with pytest.raises(ConfigError, match="a search takes no --"):
        sweep([*SEARCH, f"output_dir={tmp_path}"], policy=policy)


@pytest.mark.parametrize("several", ["budget=quick,full", "seed=0,1", "task.path=a.csv,b.csv"])
def test_scores_of_unlike_runs_are_not_searched(tmp_path, several):
    key = several.partition("=")[0]
    words = [word for word in SEARCH if not word.startswith(f"{key}=")]
    with pytest.raises(ConfigError, match=f"a search is of one {key}, not several"):
        sweep([*words, several, f"output_dir={tmp_path}"])


def test_nothing_of_a_search_is_left_in_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep([*SEARCH, "search.trials=1"])
    assert [path.name for path in Path().iterdir()] == ["outputs"]
