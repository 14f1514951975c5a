"""Score the weights of a run on other data, or with a memory of another length.

The data may be of another length, another text or another file.
"""

import json
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Any

from seqbench.config import Config
from seqbench.config.build import build
from seqbench.config.compose import with_other_values
from seqbench.errors import ConfigError, DataError, RunError, first_line, is_out_of_memory
from seqbench.experiment.build import build_model
from seqbench.experiment.classifying import is_classifier
from seqbench.experiment.forecasting import is_forecaster
from seqbench.experiment.other_file import task_on_file
from seqbench.experiment.saved_run import SavedRun
from seqbench.models.sequence_model import SequenceModel
from seqbench.runs.defaults import signature_defaults
from seqbench.runs.evaluations import Evaluation
from seqbench.runs.events import finite
from seqbench.runs.identity import FILES, result_config
from seqbench.runs.source_hash import source_hash
from seqbench.tasks.task import Split, Task
from seqbench.tasks.vocabulary import Vocabulary
from seqbench.training.predictions import Columns
from seqbench.user_files import expand_home

# Options of a task on which its tokens depend.
TOKENIZATION = {f"task.{key}" for key in ("tokens", "min_count", "vocab_size")}
# Options of a task that draw its splits.
SPLITS = {f"task.{key}" for key in ("split_seed", "valid_size", "test_size")}


def evaluate_on(
    saved: SavedRun,
    overrides: Sequence[str],
    split: Split,
    write: Callable[[Columns], None] | None = None,
) -> Evaluation:
    """Score the weights of a run with some values of its task or its model changed.

    Args:
        saved: the run.
        overrides: `task.KEY=VALUE`, and `model.KEY=VALUE` of the model's `evaluation_options`.
        split: what to score.
        write: receives the predictions, see `PredictionRows`.

    Returns:
        The evaluation. Its `overrides` are empty if they name the run's own values, for example the
        same text in another place.

    Raises:
        ConfigError: if an override is wrong, or changes the splits or what the model reads or
            predicts.
        DataError: if the data cannot be loaded.
        RunError: if the model cannot read the data.
    """
    config = with_other_values(saved.config, overrides, saved.model.evaluation_options)
    try:
        changes, task = other_task(saved, config, " ".join(overrides))
    except (ConfigError, DataError) as error:
        if not (is_classifier(saved) or is_forecaster(saved)) or not names_data(overrides):
            raise
        # The task fits its scaler to the file, and splits it.
        instead = "seqbench eval RUN --input FILE scores a file as the model was trained"
        raise type(error)(f"{error}; {instead}") from error
    others, model = other_model(saved, config)
    return score_on(saved, task, model, changes | others, split, " ".join(overrides), write)


def evaluate_file(
    saved: SavedRun, path: str, write: Callable[[Columns], None] | None = None
) -> Evaluation:
    """Score the weights of a run on all windows or sequences of a file, see `task_on_file`.

    Args:
        saved: the run, of a task that forecasts tables or classifies sequences.
        path: the file.
        write: receives the predictions, see `PredictionRows`.

    Raises:
        ConfigError: if the run is of another task, or the file lacks a column or a channel.
        DataError: if the file cannot be read, or does not fit.
        RunError: if the preprocessing of the run cannot be read.
    """
    changes = {"input": str(expand_home(path).absolute())}
    task = task_on_file(saved, path)
    return score_on(saved, task, saved.model, changes, "test", f"--input {path}", write)


def names_data(overrides: Sequence[str]) -> bool:
    """Return True if an override names a file, a dataset or how it is split."""
    names = SPLITS | {f"task.{key}" for key in (*FILES, "dataset")}
    return any(word.partition("=")[0] in names for word in overrides)


def score_on(
    saved: SavedRun,
    task: Task,
    model: SequenceModel,
    changes: dict[str, Any],
    split: Split,
    words: str,
    write: Callable[[Columns], None] | None,
) -> Evaluation:
    """Score the weights of a run on a split of another task.

    Args:
        saved: the run.
        task: with its data on the run's device.
        model: with the weights of the run.
        changes: the `overrides` of the evaluation.
        split: what to score.
        words: what the user typed to choose the data, for errors.
        write: receives the predictions.

    Raises:
        RunError: if the model cannot read the data.
    """
    try:
        metrics = saved.evaluate(split, task, write, model)
    except (IndexError, RuntimeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        raise RunError(f"the model failed with {words}: {first_line(error)}") from error
    return Evaluation(
        overrides=changes,
        split=split,
        step=saved.step,
        metric=task.primary.metric,
        metrics={name: finite(value) for name, value in metrics.items()},
        baseline=task.baseline,
        optimum=task.optimum,
        data=task.checksums,
        notes=task.notes,
        source=source_hash(saved.config),
        naive={**task.naive},
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def other_model(saved: SavedRun, config: Config) -> tuple[dict[str, Any], SequenceModel]:
    """Return the changed values of the model by key, and a model with these and the run's weights.

    Args:
        saved: the run; without changes the model is its own.
        config: that of the run with some values changed.
    """
    node, was = config["model"], saved.config["model"]
    changes = {f"model.{k}": v for k, v in node.items() if was.get(k) != v}
    if not changes:
        return {}, saved.model
    model = build_model(config, saved.spec)
    model.load_state_dict(saved.model.state_dict())
    return changes, model.to(saved.device).eval()


def known_tokens(saved: SavedRun, changes: dict[str, Any]) -> dict[str, Any]:
    """Return the options with which another text is read as the tokens that the model knows.

    Args:
        saved: the run.
        changes: the values of its task that differ. Without any, or if one is of the tokenization,
            the result is empty.
    """
    defaults = signature_defaults(saved.config["task"]["_target_"])
    if not changes or TOKENIZATION & changes.keys():
        return {}
    if defaults.get("characters", "") is None and isinstance(saved.tokenization, Vocabulary):
        return {"characters": saved.tokenization.known}
    return {"preprocessing": saved.preprocessing} if "preprocessing" in defaults else {}


def other_task(saved: SavedRun, config: Config, words: str) -> tuple[dict[str, Any], Task]:
    """Build the task of a run with some values changed, with its data on the run's device.

    Args:
        saved: the run.
        config: that of the run with some values changed.
        words: the changes as typed, for errors.

    Returns:
        The values by key, without any if it is still the run's task; and the task.

    Raises:
        ConfigError: if an override changes the splits, or what the model reads or predicts.
        DataError: if the data cannot be loaded.
    """
    node, was = config["task"], saved.config["task"]
    changes: dict[str, Any] = {}
    if result_config(config)["task"] != result_config(saved.config)["task"]:
        changes = {f"task.{k}": v for k, v in node.items() if was.get(k) != v}
        # The path stands for its file, also if that was edited since.
        for path, digest in FILES.items():
            if changes.pop(f"task.{digest}", None) is not None:
                changes[f"task.{path}"] = node[path]
    # Without its test file, a task splits the test off the training file.
    if SPLITS & changes.keys() or changes.get("task.test_path", "") is None:
        raise ConfigError(f"{words} draws other splits, which may put training examples into them")
    config["task"] = known_tokens(saved, changes) | node
    # Where the training batch does not matter, its rows would need a longer text.
    size = 1 if changes and not node.get("drop_last") else saved.trainer.batch_size
    options = {"batch_size": size, "seed": config["seed"], "data_dir": config["data_dir"]}
    task: Task = build("task", config, **options)
    for part in ("input", "target", "readout"):
        old, new = getattr(saved.spec, part), getattr(task.spec, part)
        if new != old:
            raise ConfigError(f"{words} gives {part} {new}, and the model is trained for {old}")
    now, kept = json.loads(json.dumps(task.preprocessing())), saved.preprocessing or {}
    if names := ", ".join(key for key, value in kept.items() if now.get(key) != value):
        raise ConfigError(f"{words} gives another {names} than the model was trained with")
    task.to(saved.device)
    return changes, task
