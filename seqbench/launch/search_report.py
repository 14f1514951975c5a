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


def report(study: Study, sweep: Sweep, folder: Path, repeated: dict[int, dict[int, float]]) -> str:
    """Write the best trial as a recipe and all trials as CSV; return a summary.

    Args:
        study: the study.
        sweep: the sweep of its runs.
        folder: files go to its folder `recipe`.
        repeated: trial number -> seed -> validation score, of trials that were trained with
            several seeds; if there are any, the best mean is the best trial.

    Raises:
        RunError: if no trial completed, and the search was not stopped.
    """
    trials = study.study.get_trials(False)
    task, model = study.config["choices"]["task"], study.config["choices"]["model"]
    states = Counter(WORDS[trial.state] for trial in trials)
    counts = ", ".join(f"{count} {state}" for state, count in states.most_common())
    if "completed" not in states:
        if sweep.stopped is None:
            failed = f"none of {len(trials)} trials of {study.name} completed: {counts}"
            raise RunError(f"{failed}; --retry runs them again")
        return f"no trial of {study.name} completed yet: {counts}"
    best, value = best_of(study.study, repeated)
    # Compare with a config of the same task, budget and duration: the recipe holds all else.
    bare = [word for word in study.fixed if not in_recipe(word)]
    chosen = overrides(best.params)
    others = [word for word in chosen if not word.startswith("recipe=")]
    job, without = sweep.compose([[*study.fixed, *chosen], [*bare, "recipe=none", *others]])
    file = folder / "recipe" / f"{task}_{model}.yaml"
    make_folders(file.parent)
    source = f"search of {len(trials)} trials by Optuna, all of them in {task}_{model}.trials.csv"
    score = f"valid {study.metric} {value:.4g}"
    if repeated:
        seeds = len(repeated[best.number])
        source += f"; best mean of {counted(len(repeated), 'trial')} with {seeds} seeds"
        score += f", mean of {seeds} seeds"
    elif study.settings.repeats:
        score += "; the best trials are not all repeated yet"
    text = yaml.safe_dump(recipe(job, without, study.metric, best, value, source), sort_keys=False)
    atomic.write(file, f"# @package _global_\n{text}".encode())
    write_trials(file.with_suffix(".trials.csv"), trials, study.metric, repeated)
    command = ["seqbench", "train", *as_typed(study.fixed), *chosen]
    return (
        f"{study.name}, best of {len(trials)} trials ({counts}): {score}\n"
        f"  {shlex.join(command)}\n"
        f"as a recipe, with its trials: {file}"
    )


def best_of(
    study: optuna.Study, repeated: dict[int, dict[int, float]]
) -> tuple[FrozenTrial, float | None]:
    """Return the best trial and its score, the mean over seeds of those that have several."""
    if not repeated:
        return study.best_trial, study.best_value
    means = {number: fmean(scores.values()) for number, scores in repeated.items()}
    better = max if study.direction is StudyDirection.MAXIMIZE else min
    number = better(means, key=lambda number: means[number])
    return study.get_trials(False)[number], means[number]


def in_recipe(word: str) -> bool:
    """Return True if a recipe holds what an override sets: all but task, budget and duration."""
    key = word.lstrip("+~").partition("=")[0]
    nodes = ("model.", "optimizer.", "schedule.", "trainer.")
    chosen = key in ("recipe", "optimizer", "schedule") or key.startswith(nodes)
    return chosen and key not in ("trainer.steps", "trainer.epochs")


def write_trials(
    path: Path,
    trials: list[FrozenTrial],
    metric: str,
    repeated: dict[int, dict[int, float]],
) -> None:
    """Write number, state, score, scores of further seeds and hyperparameters of trials as CSV."""
    keys = sorted({key for trial in trials for key in trial.params})
    seeds = sorted({seed for scores in repeated.values() for seed in scores})
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        several = [*(f"seed={seed}" for seed in seeds), "mean"] if repeated else []
        writer.writerow(["trial", "state", f"valid_{metric}", *several, *keys])
        for trial in trials:
            scores = repeated.get(trial.number)
            further = [*scores.values(), fmean(scores.values())] if scores else [""] * len(several)
            values = [trial.params.get(key, "") for key in keys]
            writer.writerow(
                [trial.number, trial.state.name.lower(), trial.value, *further, *values]
            )


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
