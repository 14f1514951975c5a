"""Searches with real runs in local processes."""

import csv
import os
import shlex
import shutil
import signal
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from small_sweep import SMALL, Seen, history, sweep

from seqbench.config.choices import choices_of
from seqbench.config.compose import Composer, compose
from seqbench.errors import ConfigError, RunError, RunLocked
from seqbench.launch.progress import Progress
from seqbench.launch.sweep import Policy, View
from seqbench.runs import lock
from seqbench.runs.lock import holder
from seqbench.runs.run import Run

optuna = pytest.importorskip("optuna")
from seqbench.launch.search_space import dimension  # noqa: E402
from seqbench.launch.study import Study, should_prune  # noqa: E402

SEARCH = [
    *(word for word in SMALL if not word.startswith("model")),
    *("model=gru", "model.num_layers=1", "model.hidden_size=4,6", "model.forget_bias=null"),
    *("optimizer=adam", "trainer.clip=1", "optimizer.lr=tag(log,interval(1e-4,1e-1))"),
    *("search=optuna", "search.trials=6", "search.pruner=none", "launch.workers=2"),
]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def study_of(done, folder):
    path = folder / "sweeps" / done.id / "optuna.log"
    backend = optuna.storages.journal.JournalFileBackend(str(path))
    storage = optuna.storages.JournalStorage(backend)
    return optuna.load_study(study_name="search", storage=storage)


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
    assert command[:5] == ["seqbench", "sweep", "--config-dir", str(folder), "model=gru,lstm"]
    for model, run_id in chosen.items():
        again = compose([f"model={model}", *command[5:]], str(folder))
        assert Run.of(again).run_id == run_id
    alone = [word.replace("gru,lstm", "gru") for word in words]
    assert sweep(alone, str(mine)).jobs == {}, "the same search, which is over"


def test_a_search_that_fails_leaves_the_others_their_result(two_models):
    words, mine = two_models
    (mine / "search_space" / "gru.yaml").write_text("optimizer.lr: 1e30,1e31\n")
    done = sweep([*words, "trainer.clip=null"], str(mine))
    assert "none of 2 trials of gru on adding completed: 2 failed" in str(done.error)
    assert done.summary.startswith("lstm on adding, best of 2 trials (2 completed): ")
    assert "--config-dir" not in done.summary


def test_what_cannot_be_searched_is_an_error_before_the_first_search(two_models):
    words, mine = two_models
    (mine / "search_space" / "lstm.yaml").write_text("model.chanels: 1,2\n")
    with pytest.raises(ConfigError, match="chanels"):
        sweep(words, str(mine))
    assert not records(mine.parent)


def records(folder):
    return list(folder.glob("runs/*/*/*/record.json"))


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


class CutAfter(View):
    """Send SIGTERM to the search once a number of runs have ended."""

    def __init__(self, runs):
        self.runs = runs

    def ended(self, job, ending, found):
        self.runs -= 1
        if not self.runs:
            os.kill(os.getpid(), signal.SIGTERM)


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
        with pytest.raises(RunError, match="none of 2 trials of gru on adding completed: 2 failed"):
            sweep([*words, f"output_dir={tmp_path}"])
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
    assert plan == "then the 4 best with 1 further seed each"
    cut = sweep(words, view=CutAfter(3))
    assert cut.stopped == "interrupted"
    assert "; the best trials are not all repeated yet\n" in cut.summary
    assert len(records(tmp_path)) < 4
    assert "mean of 2 seeds" in sweep(words).summary
    assert len(records(tmp_path)) == 4


@pytest.mark.parametrize("policy", [Policy(force=True), Policy(wait=False)])
def test_what_makes_no_sense_for_a_search_is_refused(tmp_path, policy):
    with pytest.raises(ConfigError, match="a search takes no --"):
        sweep([*SEARCH, f"output_dir={tmp_path}"], policy=policy)


@pytest.mark.parametrize(
    ("word", "log"), [("int(interval(4,16))", False), ("int(tag(log,interval(4,16)))", True)]
)
def test_an_interval_of_integers_gives_integers(word, log):
    [override] = OverridesParser.create().parse_overrides([f"model.hidden_size={word}"])
    assert dimension(override) == optuna.distributions.IntDistribution(4, 16, log=log)


@pytest.mark.parametrize(
    ("word", "drawn"),
    [("range(1,6,2)", {1, 3, 5}), ("range(6,3,-1)", {4, 5, 6}), ("range(2,4)", {2, 3})],
)
def test_a_range_is_searched_whole(word, drawn):
    [override] = OverridesParser.create().parse_overrides([f"model.num_layers={word}"])
    found = dimension(override)
    assert set(range(found.low, found.high + 1, found.step)) == drawn


@pytest.mark.parametrize("word", ["range(5,5)", "interval(0.1,0.01)", "tag(log,interval(0,0.01))"])
def test_a_range_without_values_costs_a_line(word):
    [override] = OverridesParser.create().parse_overrides([f"optimizer.lr={word}"])
    with pytest.raises(ConfigError, match="cannot be searched: "):
        dimension(override)


@pytest.mark.parametrize("several", ["budget=quick,full", "seed=0,1"])
def test_scores_of_unlike_runs_are_not_searched(tmp_path, several):
    key = several.partition("=")[0]
    words = [word for word in SEARCH if not word.startswith(f"{key}=")]
    with pytest.raises(ConfigError, match=f"a search is of one {key}, not several"):
        sweep([*words, several, f"output_dir={tmp_path}"])


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


@pytest.mark.parametrize("model", choices_of("model"))
def test_every_model_has_a_space_whose_settings_can_be_built(model, tmp_path):
    assert model in choices_of("search_space")
    words = [word for word in SMALL if not word.startswith("model")]
    drawn = 5 if model == "tcn" else 2
    words += [f"model={model}", f"output_dir={tmp_path}"]
    words += ["search=optuna", f"search.parallel={drawn}"]
    dry = sweep(words, policy=Policy(dry_run=True))
    assert len(dry.jobs) == drawn
    assert len({job.config["optimizer"]["lr"] for job in dry.jobs.values()}) == drawn


def test_a_search_space_in_the_users_folder_is_found(tmp_path):
    for name, line in {"gru": "optimizer.lr: 0.5,0.25", "wide": "trainer.clip: 7,9"}.items():
        (tmp_path / "search_space").mkdir(exist_ok=True)
        (tmp_path / f"search_space/{name}.yaml").write_text(line)
    words = [word for word in SEARCH if "," not in word] + [f"output_dir={tmp_path}"]
    for more, node, key, values in (
        ([], "optimizer", "lr", {0.5, 0.25}),
        (["search.space=wide"], "trainer", "clip", {7, 9}),
    ):
        words = [word for word in words if not word.startswith(f"{node}.{key}=")]
        dry = sweep([*words, *more], str(tmp_path), Policy(dry_run=True))
        assert {job.config[node][key] for job in dry.jobs.values()} <= values


@pytest.mark.parametrize(
    ("word", "error"),
    [
        ("search.trials=0", "must be positive"),
        ("search.space=nosuch", "no search space named 'nosuch'"),
        ("search.sampler=best", "search.sampler must be one of tpe, random"),
        ("search.trial=3", "did you mean 'search.trials'"),
    ],
)
def test_settings_that_cannot_be_cost_a_line(tmp_path, word, error):
    with pytest.raises(ConfigError, match=error):
        sweep([*SEARCH, f"output_dir={tmp_path}", word])


def test_there_must_be_something_to_search(tmp_path):
    with pytest.raises(ConfigError, match="nothing to search"):
        sweep([*SMALL, f"output_dir={tmp_path}", "search=optuna", "search.space=none"])


def test_nothing_of_a_search_is_left_in_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep([*SEARCH, "search.trials=1"])
    assert [path.name for path in Path().iterdir()] == ["outputs"]
