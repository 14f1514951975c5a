"""Score the weights of a run on other data than its own: at another length, on another text."""

import json
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Any

from seqbench.config.build import build
from seqbench.config.compose import with_task_values
from seqbench.errors import ConfigError, RunError, is_out_of_memory
from seqbench.experiment.saved_run import SavedRun
from seqbench.runs.code_hash import source_hash
from seqbench.runs.defaults import signature_defaults
from seqbench.runs.evaluations import Evaluation
from seqbench.runs.events import finite
from seqbench.runs.identity import FILES, result_config
from seqbench.tasks.task import Split, Task
from seqbench.tasks.vocabulary import Vocabulary
from seqbench.training.predictions import Columns

# Options of a task on which its tokens depend.
TOKENIZATION = {f"task.{key}" for key in ("tokens", "min_count", "vocab_size")}


def evaluate_on(
    saved: SavedRun,
    overrides: Sequence[str],
    split: Split,
    write: Callable[[Columns], None] | None = None,
) -> Evaluation:
    """Score the weights of a run on its task with some values changed.

    Args:
        saved: the run.
        overrides: `task.KEY=VALUE`.
        split: what to score.
        write: receives the predictions, see `PredictionRows`.

    Returns:
        The evaluation. Its `overrides` are empty if they name the run's own task, for example the
        same text in another place.

    Raises:
        ConfigError: if an override is wrong, or changes what the model reads or predicts.
        DataError: if the data cannot be loaded.
        RunError: if the model cannot read the data.
    """
    changes, task = other_task(saved, overrides)
    try:
        metrics = saved.evaluate(split, task, write)
    except (IndexError, RuntimeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        reason = str(error).split("\n")[0]
        raise RunError(f"the model failed with {' '.join(overrides)}: {reason}") from error
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
        source=source_hash(),
        naive={**task.naive},
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


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
    if defaults.get("characters", "") is None and isinstance(saved.vocabulary, Vocabulary):
        return {"characters": saved.vocabulary.characters}
    return {"preprocessing": saved.preprocessing} if "preprocessing" in defaults else {}


def other_task(saved: SavedRun, overrides: Sequence[str]) -> tuple[dict[str, Any], Task]:
    """Build the task of a run with some values changed, with its data on the run's device.

    Returns:
        The values by key, without any if it is still the run's task; and the task.

    Raises:
        ConfigError: if an override is wrong, or changes what the model reads or predicts.
        DataError: if the data cannot be loaded.
    """
    config, words = with_task_values(saved.config, overrides), " ".join(overrides)
    node, was = config["task"], saved.config["task"]
    changes: dict[str, Any] = {}
    if result_config(config)["task"] != result_config(saved.config)["task"]:
        changes = {f"task.{k}": v for k, v in node.items() if was.get(k) != v}
        # The path stands for its file, also if that was edited since.
        for path, digest in FILES.items():
            if changes.pop(f"task.{digest}", None) is not None:
                changes[f"task.{path}"] = node[path]
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
