"""Report the result of a search: its best trial as a recipe, all trials as CSV, and a summary."""

import csv
import json
import shlex
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
import yaml
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from seqbench.config.overrides import as_typed
from seqbench.errors import RunError
from seqbench.launch.job import Job
from seqbench.launch.search_space import overrides
from seqbench.launch.study import Study
from seqbench.launch.sweep import Sweep
from seqbench.runs import atomic
from seqbench.user_files import make_folders
from seqbench.wording import counted

WORDS = {
    TrialState.COMPLETE: "completed",
    TrialState.PRUNED: "stopped early",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "not over",
    TrialState.WAITING: "not begun",
}


def report(study: Study, sweep: Sweep, folder: Path) -> str:
    """Write the best trial as a recipe and all trials as CSV; return a summary.

    The best trial is that with the best mean of its seeds, if trials were repeated.

    Args:
        study: the study.
        sweep: the sweep of its runs.
        folder: files go to its folder `recipe`.

    Raises:
        RunError: if no trial completed and the search was not stopped, or if none of those that
            were repeated completed with all seeds.
    """
    trials = study.study.get_trials(False)
    task, model = study.config["choices"]["task"], study.config["choices"]["model"]
    states = Counter(WORDS[trial.state] for trial in trials)
    counts = ", ".join(f"{count} {state}" for state, count in states.most_common())
    if "completed" not in states:
        if study.is_over or sweep.stopped is None:
            failed = f"none of {counted(len(trials), 'trial')} of {study.name} completed: {counts}"
            raise RunError(f"{failed}; --retry runs them again")
        return f"no trial of {study.name} completed yet: {counts}"
    complete = means(study)
    best, value = best_of(study.study, complete)
    # Compare with a config of the same task, budget and duration: the recipe holds all else.
    bare = [word for word in study.fixed if not in_recipe(word)]
    chosen = overrides(best.params)
    others = [word for word in chosen if not word.startswith("recipe=")]
    job, without = sweep.compose([[*study.fixed, *chosen], [*bare, "recipe=none", *others]])
    file = folder / "recipe" / f"{task}_{model}.yaml"
    make_folders(file.parent)
    source = f"search of {counted(len(trials), 'trial')} by Optuna, see {task}_{model}.trials.csv"
    score = f"valid {study.metric} {value:.4g}"
    if complete:
        seeds = counted(study.settings.repeats + 1, "seed")
        source += f"; best mean of {counted(len(complete), 'trial')} with {seeds}"
        score += f", mean of {seeds}"
    elif study.settings.repeats and not study.scores:
        score += "; the best trials are not all repeated yet"
    for number in study.scores.keys() - complete.keys():
        score += f"; without trial {number}, which failed with a further seed"
    found = recipe(job, without, study.metric, best, value, source)
    text = yaml.safe_dump(found, sort_keys=False, width=100)
    atomic.write(file, f"# @package _global_\n{text}".encode())
    write_trials(file.with_suffix(".trials.csv"), study, complete)
    if study.scores and not complete:
        raise RunError(
            f"of the {counted(len(study.scores), 'best trial')} of {study.name}, none completed "
            f"with all seeds; {file} has the best single run; --retry trains the failed ones again"
        )
    own = sweep.composer.config_dir
    command = ["seqbench", "train", *([] if own is None else ["--config-dir", own])]
    return (
        f"{study.name}, best of {counted(len(trials), 'trial')} ({counts}): {score}\n"
        f"  {shlex.join([*command, *as_typed(study.fixed), *chosen])}\n"
        f"as a recipe, with its trials: {file}"
    )


def means(study: Study) -> dict[int, float]:
    """Return trial number -> mean score of the trials that completed with all seeds."""
    found = {}
    for number, scores in study.scores.items():
        values = [score for score in scores.values() if score is not None]
        if len(values) == len(scores):
            found[number] = fmean(values)
    return found


def best_of(study: optuna.Study, complete: dict[int, float]) -> tuple[FrozenTrial, float | None]:
    """Return the trial with the best mean, and the mean; without means, the best single run."""
    if not complete:
        return study.best_trial, study.best_value
    better = max if study.direction is StudyDirection.MAXIMIZE else min
    number = better(complete, key=lambda number: complete[number])
    return study.get_trials(False)[number], complete[number]


def in_recipe(word: str) -> bool:
    """Return True if a recipe holds what an override sets: all but task, budget and duration."""
    key = word.lstrip("+~").partition("=")[0]
    nodes = ("model.", "optimizer.", "schedule.", "trainer.")
    chosen = key in ("recipe", "optimizer", "schedule") or key.startswith(nodes)
    return chosen and key not in ("trainer.steps", "trainer.epochs")


def write_trials(path: Path, study: Study, complete: dict[int, float]) -> None:
    """Write number, state, scores and hyperparameters of each trial as CSV.

    Args:
        path: the file.
        study: the study.
        complete: trial number -> mean score, of trials that completed with all seeds.
    """
    trials = study.study.get_trials(False)
    keys = sorted({key for trial in trials for key in trial.params})
    seeds = next(iter(study.scores.values()), {})
    several = [*(f"seed={seed}" for seed in seeds), "mean"] if study.scores else []
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["trial", "state", f"valid_{study.metric}", *several, *keys])
        for trial in trials:
            scores = study.scores.get(trial.number, {})
            further = [*scores.values(), complete.get(trial.number)] if scores else []
            further += [None] * (len(several) - len(further))
            values = [trial.params.get(key, "") for key in keys]
            state = trial.state.name.lower()
            writer.writerow([trial.number, state, trial.value, *further, *values])


def recipe(
    job: Job, without: Job, metric: str, best: FrozenTrial, value: float | None, source: str
) -> dict[str, Any]:
    """Return the best trial in the format of `configs/recipe`.

    It holds the searched hyperparameters, and what the recipe in force during the search and the
    overrides that all trials share had set.

    Args:
        job: job of the best trial.
        without: the job of the same task, budget and duration with `recipe=none`.
        metric: metric of the score.
        best: the best trial.
        value: its score, or the mean of its scores.
        source: what the recipe comes from, in words.
    """
    config, bare = job.config, without.config
    lengths = {key: config["trainer"][key] for key in ("steps", "epochs")}
    length = " ".join(f"{key}={value}" for key, value in lengths.items() if value is not None)
    result: dict[str, Any] = {
        "recipe": {
            "source": source,
            "expected": {
                "split": "valid",
                "metric": metric,
                "value": value,
                "at": f"budget={config['budget']} {length}",
            },
        }
    }
    searched = set(best.params)
    for node in ("optimizer", "schedule"):
        if config[node] != bare[node] or any(key.partition(".")[0] == node for key in searched):
            # The whole node: applied over another choice, a part would keep that choice's values.
            result["recipe"][node] = json.loads(json.dumps(config[node]))
    for node in ("task", "model", "trainer"):
        for name, value in config[node].items():
            if f"{node}.{name}" in searched or value != bare[node].get(name):
                result.setdefault(node, {})[name] = value
    return result
