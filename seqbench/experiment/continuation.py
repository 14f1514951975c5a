"""Continue a completed run: another run starts from its last checkpoint.

The config of a continuation names its parent, `continues: <run id>`, and is otherwise that of the
parent but for the options in `LENGTH`. Both runs are in the same folder of runs. A continuation
begins with copies of the parent's events, best weights and last checkpoint, and resumes from them
like an interrupted run. After that it does not read the parent's checkpoints.
"""

import json
from dataclasses import dataclass
from typing import Any

from typeguard import TypeCheckError

from seqbench.config import Config
from seqbench.config.remembered import custom_targets
from seqbench.errors import ConfigError, RunError
from seqbench.experiment.build import Experiment
from seqbench.results.command import resume_command
from seqbench.results.where import flatten
from seqbench.runs import atomic, foreign, lock
from seqbench.runs.config_file import read_config
from seqbench.runs.events import LARGEST_LOG
from seqbench.runs.identity import plain_numbers, result_config, run_id
from seqbench.runs.record import Record, RecordError
from seqbench.runs.run import Run
from seqbench.training import checkpoint
from seqbench.training.state import Progress, read_progress
from seqbench.training.trainer import Trainer

# Options of the trainer that a continuation may change.
LENGTH = ("steps", "epochs", "eval_every", "patience", "stop_when_solved")


@dataclass(frozen=True)
class Origin:
    """The files of the parent that a continuation begins with.

    Attributes:
        last: the last checkpoint.
        best: the best weights.
        events: the event log up to the last checkpoint.
    """

    last: checkpoint.Loaded
    best: checkpoint.Loaded
    events: bytes

    def write(self, folder: Run) -> None:
        """Write the files to the continuation's folder, which this process holds."""
        atomic.write(folder.events_path, self.events)
        checkpoint.save(folder.checkpoints / checkpoint.BEST, *self.best)
        # At the end: without this file, a run that was killed before begins anew.
        checkpoint.save(folder.checkpoints / checkpoint.LAST, *self.last)


def parent_of(folder: Run, config: Config) -> Run | None:
    """Return the run that a config continues; `None` if it continues none."""
    name = config.get("continues")
    return None if name is None else Run(folder.folder.parent / name)


def read_origin(experiment: Experiment, folder: Run, *, force: bool) -> Origin | None:
    """Read what a run begins with, before its folder is created or emptied.

    Args:
        experiment: the parts of the run.
        folder: the run's folder.
        force: the run starts again, whatever is there.

    Returns:
        `None` if the run continues no other run, or resumes from a checkpoint of its own.

    Raises:
        ConfigError: if the parent is missing, is not completed, has other settings, or leaves
            no step to train.
        RunError: if the parent's checkpoints are missing or damaged.
    """
    parent = parent_of(folder, experiment.config)
    if parent is None:
        return None
    own = (folder.checkpoints / name for name in (checkpoint.LAST, checkpoint.PREVIOUS))
    if not force and not folder.record_path.exists() and any(path.exists() for path in own):
        return None
    check_completed(parent)
    check_settings(parent, experiment.config)
    try:
        parent.check_files()
        files = [parent.checkpoints / checkpoint.LAST, parent.checkpoints / checkpoint.BEST]
        if missing := [path for path in files if not path.exists()]:
            raise RunError(f"its checkpoints/{missing[0].name} was deleted")
        last, best = map(checkpoint.load, files)
        progress = read_progress(last[1])
        events = foreign.read(parent.events_path, LARGEST_LOG)[: last[1]["events_offset"]]
        if len(events) < last[1]["events_offset"]:
            raise RunError(f"{parent.events_path} has lost events")
    except (LookupError, OSError, RunError, TypeCheckError, TypeError) as error:
        raise RunError(
            f"run {parent.run_id} cannot be continued: {error}; "
            f"'{resume_command(parent.folder)} --force' trains it again"
        ) from error
    check_steps_left(
        parent, progress, experiment.trainer, experiment.trainer.total_steps(experiment.task)
    )
    return Origin(last, best, events)


def check_completed(parent: Run) -> Record:
    """Return the record of a run that can be continued.

    Raises:
        ConfigError: if there is no such run, or it is not completed.
    """
    name, again = f"run {parent.run_id}", resume_command(parent.folder)
    record = parent.record
    if record is None:
        if not parent.config_path.exists():
            raise ConfigError(f"{name} is not in {parent.folder.parent}, so it cannot be continued")
        if lock.is_held(parent.folder):
            raise ConfigError(f"{name} is being trained: continue it when it is completed")
        raise ConfigError(f"{name} is unfinished: first complete it with '{again}'")
    if record.status != "completed":
        raise ConfigError(
            f"{name} {record.status}, and only a completed run can be continued: "
            f"'{again} --retry' starts it again"
        )
    return record


def check_settings(parent: Run, config: Config) -> None:
    """Raise `ConfigError` if a continuation changes more than the options in `LENGTH`.

    The parent's folder may be foreign: its custom code is imported only if the continuation, which
    is trusted, names the same.
    """
    before = read_config(parent.config_path)
    if custom_targets(before) != custom_targets(config | {"tracker": {}}):
        raise ConfigError(f"a continuation of run {parent.run_id} keeps its model and its task")
    if run_id(before) != parent.run_id:
        raise ConfigError(
            f"{parent.config_path} is not the configuration of this folder's run, or "
            "the file of its custom model or task was edited"
        )
    old, new = flatten(fixed_settings(before)), flatten(fixed_settings(config))
    changed = [key for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key)]
    if changed:
        raise ConfigError(
            f"a continuation of run {parent.run_id} keeps its {changed[0]}: of the settings, only "
            f"{', '.join(f'trainer.{name}' for name in LENGTH)} may change"
        )


def fixed_settings(config: Config) -> dict[str, Any]:
    """Return the settings that a continuation shares with its parent."""
    settings = plain_numbers(result_config(config))
    trainer = {k: v for k, v in settings["trainer"].items() if k not in LENGTH}
    return {k: v for k, v in settings.items() if k != "continues"} | {"trainer": trainer}


def check_steps_left(parent: Run, progress: Progress, trainer: Trainer, total: int) -> None:
    """Raise `ConfigError` if a training would end before its first step.

    Args:
        parent: the run to continue.
        progress: of its last checkpoint.
        trainer: of the continuation.
        total: steps of the continuation.
    """
    done = f"run {parent.run_id} has done {progress.step:,} steps"
    if progress.step >= total:
        if trainer.steps is None:
            given = f"trainer.epochs, got {trainer.epochs}, of {total:,} steps"
        else:
            given = f"trainer.steps, got {total}: try trainer.steps={2 * progress.step}"
        raise ConfigError(f"{done}: expected a larger {given}")
    if trainer.is_over(progress):
        key = "stop_when_solved" if trainer.stop_when_solved and progress.solved else "patience"
        value = "false" if key == "stop_when_solved" else "null"
        raise ConfigError(
            f"{done}, and trainer.{key}={getattr(trainer, key)} ends its continuation there: "
            f"add trainer.{key}={value}"
        )


def lineage(folder: Run, config: Config) -> str:
    """Return how the runs that a run continues were configured, such as `steps=12`.

    Unlike the parent's id, it is the same for all seeds, so tables can pool continuations. Of a
    parent that was deleted, only the id is known.

    Args:
        folder: the run's folder.
        config: the run's config, with `continues`.
    """
    parent = parent_of(folder, config)
    assert parent is not None
    try:
        before, record = read_config(parent.config_path), parent.record
    except (ConfigError, RecordError):
        return parent.run_id
    options, now = before.get("trainer", {}), config["trainer"]
    changed = {k: v for k in LENGTH if (v := options.get(k)) not in (None, now.get(k))}
    said = " ".join(f"{name}={json.dumps(value)}" for name, value in changed.items())
    earlier = [str(record.notes["continues"])] if record and "continues" in record.notes else []
    return " then ".join([*earlier, said or parent.run_id])
