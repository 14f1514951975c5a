"""Build a task from a new file to score a run on it, with what was fitted to the training data.

All windows or sequences of the file are its test split. No training data are needed.
"""

import numpy as np

from seqbench.datasets.table import Table
from seqbench.errors import ConfigError, DataError
from seqbench.experiment import classifying, forecasting
from seqbench.experiment.saved_run import SavedRun
from seqbench.tasks.classification import Classification
from seqbench.tasks.table_features import TableFeatures
from seqbench.tasks.task import Task
from seqbench.tasks.tokenization import KINDS
from seqbench.tasks.window_task import WindowTask
from seqbench.user_files import check_digest, expand_home


def task_on_file(saved: SavedRun, path: str) -> Task:
    """Return a task whose test split is a file, with its data on the run's device.

    Args:
        saved: the run, of a task that forecasts tables or classifies sequences or texts.
        path: a file that `predict` reads, with the targets or the classes.

    Raises:
        ConfigError: if the run is of another task, or the file lacks a column or a channel.
        DataError: if the file cannot be read, misses a value, has another time step or another
            class than the training data, or nothing to score.
        RunError: if the preprocessing of the run cannot be read.
    """
    task: Task
    if classifying.is_classifier(saved):
        task = sequence_task(saved, path)
    elif forecasting.is_forecaster(saved):
        task = table_task(saved, path)
    else:
        instead = "task.KEY=VALUE changes the task"
        if KINDS.keys() & (saved.preprocessing or {}).keys():
            instead = "task.path=FILE scores another text"
        name = saved.config["choices"]["task"]
        raise ConfigError(
            "--input is for runs that forecast tables or classify sequences or texts, and this run "
            f"is one of {name}: seqbench eval RUN {instead}"
        )
    task.checksums[expand_home(path).name] = check_digest(path, None, "--input")
    task.to(saved.device)
    return task


def table_task(saved: SavedRun, path: str) -> WindowTask:
    """Return a task that forecasts all windows of a table; see `task_on_file`."""
    features, table = forecasting.read_new_table(saved, path)
    length = saved.spec.length
    ends = forecasting.valued_ends(table, features)
    origins = [
        np.arange(own.start + length - 1, end - features.horizon)
        for own, end in zip(table.series.values(), ends, strict=True)
    ]
    check_windows(table, features, length, ends)
    read = np.zeros(len(table.values), np.bool_)
    for own, end, at in zip(table.series.values(), ends, origins, strict=True):
        read[own.start : end] = len(at) > 0
    table.check_complete(
        features.indices(table), missing=features.masks, rows=read, hint=forecasting.MISSING_HINT
    )
    task = WindowTask(
        features,
        table,
        {"test": np.concatenate(origins)},
        length,
        None,
        batch_size=saved.trainer.batch_size,
        seed=saved.config["seed"],
        data_dir=None,
    )
    if short := sum(len(at) == 0 for at in origins):
        task.notes["short_series"] = short
    return task


def check_windows(table: Table, features: TableFeatures, length: int, ends: list[int]) -> None:
    """Raise `DataError` if no series of a table is as long as a window.

    Args:
        table: the table.
        features: of the run.
        length: time steps of the look-back.
        ends: of each series, as `valued_ends` returns them.
    """
    longest = max(end - own.start for own, end in zip(table.series.values(), ends, strict=True))
    expected = length + features.horizon
    if longest < expected:
        of = " in a series" if len(table.series) > 1 else ""
        raise DataError(
            f"{table.path}: expected at least {expected:,} rows{of}, a look-back of {length:,} and "
            f"a horizon of {features.horizon:,}, got {longest:,}"
        )


def sequence_task(saved: SavedRun, path: str) -> Classification:
    """Return a task that classifies all sequences or texts of a file; see `task_on_file`."""
    features, sequences, data = classifying.read_new(saved, path, with_labels=True)
    if data.labels is None:
        raise DataError(
            f"{path} has no classes to score: expected an array y in an npz file, @classLabel true "
            f"in a .ts file, or a column '{features.label}' in a table"
        )
    task = Classification(
        "mean" if saved.spec.readout == "mean" else "last",
        "error",
        None,
        None,
        batch_size=saved.trainer.batch_size,
        seed=saved.config["seed"],
        data_dir=None,
    )
    task.set_sequences(
        features, sequences, data.labels, path, {"test": np.arange(len(data.labels))}
    )
    return task
