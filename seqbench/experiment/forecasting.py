"""Forecast the series of a new table with the weights of a run; no training data are needed."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqbench.datasets.table import Table, read_table
from seqbench.datasets.time_steps import following, moment, nominal, step_name, without_midnight
from seqbench.errors import ConfigError, DataError, RunError
from seqbench.experiment.saved_run import SavedRun
from seqbench.spec import Values
from seqbench.tasks.table_features import TableFeatures
from seqbench.tasks.tokenization import KINDS
from seqbench.tasks.window_batch import ForecastBatch, look_backs
from seqbench.training.prediction import predict
from seqbench.training.predictions import Columns, unused
from seqbench.wording import plain

BATCH = 256
# Ends the error on a missing value.
MISSING_HINT = "the model was trained with task.missing=error"


def forecast(saved: SavedRun, path: str, *, rolling: bool = False) -> Iterator[Columns]:
    """Forecast each series of a table, and yield the forecasts as columns, batch by batch.

    A forecast has an origin, the last row that the model reads: the last row of a series with a
    value of a target. Rows after it hold columns known ahead.

    Args:
        saved: the run, of a forecasting task.
        path: a CSV or Parquet file with the columns of the run.
        rolling: forecast from each row that has a full look-back and, of columns known ahead, a
            full horizon.

    Yields:
        A row for each step of each horizon: the series if the run has a group column, `origin` if
        rolling, the time (or, without a time column, the row's number in its series, `row`), and
        the targets in their unit.

    Raises:
        ConfigError: if the run is of another task, or the file lacks a column.
        DataError: if the file cannot be read, has another time step than the training data, fewer
            rows than the look-back, or misses a value that the model reads.
        RunError: if the preprocessing of the run cannot be read.
    """
    if not is_forecaster(saved):
        instead = "eval RUN --predictions FILE.csv writes the predictions of its test split"
        if KINDS.keys() & (saved.preprocessing or {}).keys():
            instead = "generate RUN --prompt TEXT continues a text"
        raise ConfigError(
            "predict needs a model that forecasts or classifies sequences, and this run is one of "
            f"{saved.config['choices']['task']}: seqbench {instead}"
        )
    features, table = read_new_table(saved, path)
    length, horizon, targets = saved.spec.length, features.horizon, features.targets
    origins = origins_of(table, features, length, rolling)
    check_read_values(table, features, length, origins)
    clock, names = clock_of(table, features), np.array(list(table.series), dtype=object)
    taken = [str(name) for name in (*targets, features.group, features.time)]
    time = table.time_column or unused("row", taken)
    series = features.model_inputs(features.scaled(table), table).to(saved.device)
    every_row = np.concatenate(origins)
    every_number = np.arange(len(origins)).repeat([len(rows) for rows in origins])
    for first in range(0, len(every_row), BATCH):
        rows, numbers = every_row[first : first + BATCH], every_number[first : first + BATCH]
        at = torch.from_numpy(rows).to(saved.device)
        with saved.trainer.autocast(saved.device):
            scaled = scaled_forecast(saved, features, look_backs(series, at, length))
        answer = features.original(scaled).reshape(-1, len(targets))
        places = rows + numbers * horizon  # each series before has `horizon` more times than rows
        columns: Columns = {}
        if features.group is not None:
            columns[features.group] = names[numbers].repeat(horizon)
        if rolling:
            columns[unused("origin", taken)] = clock[places].repeat(horizon)
        columns[time] = clock[places[:, None] + np.arange(1, horizon + 1)].ravel()
        yield columns | dict(zip(targets, answer.T, strict=True))


@torch.no_grad()
def scaled_forecast(saved: SavedRun, features: TableFeatures, inputs: Tensor) -> Tensor:
    """Return the scaled forecasts of look-backs `(batch, time, dim)`, `(batch, steps, targets)`."""
    unknown = inputs.new_full((len(inputs), features.horizon, len(features.targets)), torch.nan)
    batch = features.normalized(ForecastBatch(inputs, unknown))
    outputs, _, _ = predict(saved.model, batch, None, saved.spec)
    return batch.answer(outputs)


def is_forecaster(saved: SavedRun) -> bool:
    """Return True if a run forecasts the columns of a table."""
    return isinstance(saved.spec.target, Values) and saved.spec.target.steps is not None


def features_of(saved: SavedRun) -> TableFeatures:
    """Return the features that are kept with the weights of a run that forecasts.

    Raises:
        RunError: if they cannot be read.
    """
    try:
        return TableFeatures.from_json(saved.preprocessing or {})
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"the weights of this run hold no scaler and columns that can be read: {error}; "
            "seqbench train with --force trains it again"
        ) from error


def read_new_table(saved: SavedRun, path: str) -> tuple[TableFeatures, Table]:
    """Return the features of a run that forecasts, and a table with their columns.

    Raises:
        ConfigError: if the file lacks a column.
        DataError: if it cannot be read, or has another time step than the training data.
        RunError: if the features cannot be read.
    """
    features = features_of(saved)
    table = read_table(path, features.time, features.group, features.columns)
    table.check_columns(features.columns, "columns of the run")
    check_time_step(table, features)
    return features, in_time_zone(table, features)


def in_time_zone(table: Table, features: TableFeatures) -> Table:
    """Return a table with its times in UTC if those of the training data were.

    Raises:
        DataError: if its times are in UTC, and the model read the calendar of local times.
    """
    if table.time is None or table.offset is None:
        return table
    if features.utc:
        return replace(table, time=table.time - table.offset, offset=np.timedelta64(0, "m"))
    if features.calendar and not table.offset:
        raise DataError(
            f"{table.path}: the times are in UTC, and the model was trained with local times: "
            "write them with one offset from UTC, or without"
        )
    return table


def check_time_step(table: Table, features: TableFeatures) -> None:
    """Raise `DataError` if a table has another time step than the training data."""
    if table.step is None or features.time_step is None:
        return
    if nominal(table.step) != features.time_step:
        trained = np.timedelta64(features.time_step, "us")
        raise DataError(
            f"{table.path}: the time step is {step_name(table.step)}, and the model was trained "
            f"with {step_name(trained)}"
        )


def origins_of(
    table: Table, features: TableFeatures, length: int, rolling: bool
) -> list[NDArray[np.int64]]:
    """Return the rows of each series after which it is forecast, successive ones.

    Raises:
        DataError: if a series has fewer rows than a look-back, or no rows for the columns known
            ahead.
    """
    found = []
    ends = valued_ends(table, features)
    for (name, own), end in zip(table.series.items(), ends, strict=True):
        place = f"{table.path}, series '{plain(name)}'" if name else table.path
        count = end - own.start
        if count < length:
            until = "" if count == own.stop - own.start else " up to the last value of a target"
            raise DataError(
                f"{place}: expected at least {length:,} rows, the look-back of the model, got "
                f"{count:,}{until}"
            )
        last = end - 1
        first = own.start + length - 1 if rolling else last
        if features.known:
            covered = own.stop - 1 - features.horizon
            if covered < first:
                known = ", ".join(map(plain, features.known))
                time = "" if table.time is None else f" ({moment(table.time[last])})"
                raise DataError(
                    f"{place}: expected {features.horizon:,} rows with {known} after the last "
                    f"value of a target{time}, got {own.stop - 1 - last:,}: add them, with empty "
                    "targets"
                )
            last = min(last, covered)
        found.append(np.arange(first, last + 1))
    return found


def valued_ends(table: Table, features: TableFeatures) -> list[int]:
    """Return the end of the rows of each series up to the last one with a value of a target."""
    targets = table.values[:, features.indices(table)[: len(features.targets)]]
    valued = np.asarray((~np.isnan(targets)).any(1))
    series = table.series.values()
    return [own.start + int((np.flatnonzero(valued[own]) + 1).max(initial=0)) for own in series]


def check_read_values(
    table: Table, features: TableFeatures, length: int, origins: list[NDArray[np.int64]]
) -> None:
    """Raise `DataError` if a value that the model reads is infinite, or missing and not masked."""
    for known, ahead in ((False, 0), (True, features.horizon)):
        read = np.zeros(len(table.values), np.bool_)
        for rows in origins:
            read[rows[0] + 1 - length : rows[-1] + 1 + ahead] = True
        table.check_complete(
            features.indices(table, known=known),
            missing=features.masks,
            rows=read,
            hint=MISSING_HINT,
        )


def clock_of(table: Table, features: TableFeatures) -> NDArray[np.generic]:
    """Return the times of the rows of each series, and of the `horizon` time steps after it.

    Without a time column or a time step, rows are numbered from 1 in each series.
    """
    step, parts = table.step, []
    if step is None and features.time_step is not None:
        step = np.timedelta64(features.time_step, "us")
    for own in table.series.values():
        if table.time is None or step is None:
            parts.append(np.arange(1, own.stop - own.start + features.horizon + 1))
        else:
            times = table.time[own]
            parts.append(np.concatenate([times, following(times, step, features.horizon)]))
    return without_midnight(np.concatenate(parts))
