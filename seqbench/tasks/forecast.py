"""Forecast time series: from the last `length` time steps of a table, the next `horizon`.

At each time step the model reads the target columns, the other columns, an indicator of missing
values for each of them, the columns known ahead as they will be `horizon` steps later, and calendar
features. It answers at the last step.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from seqbench.datasets.catalog import find
from seqbench.datasets.download import ensure
from seqbench.datasets.table import Table, read_table
from seqbench.datasets.time_steps import nominal
from seqbench.errors import ConfigError
from seqbench.tasks.calendar_features import calendar_names
from seqbench.tasks.naive import seasonal_differences
from seqbench.tasks.table_features import TableFeatures, fit_scaler
from seqbench.tasks.window_batch import Normalize
from seqbench.tasks.window_task import WindowTask
from seqbench.tasks.windows import SPLITS, Rows, split_rows, windows
from seqbench.user_files import check_digest, expand_home


class Forecast(WindowTask):
    """Forecast the columns of a table.

    Args:
        target: the columns to forecast, or `all` that are not known ahead.
        length: time steps of the look-back.
        horizon: time steps ahead.
        inputs: the other columns that the model reads, or `all`.
        known: columns whose values are known ahead, such as holidays. With a look-back shorter than
            the horizon, the model sees their last `length` values.
        calendar: add hour, weekday and month, where the time step allows.
        splits: as for `windows.split_rows`.
        normalize: applied to the columns of each window alike for all models, and undone in the
            answer. `last` subtracts the last value; `window` subtracts the mean of the look-back
            and divides by its standard deviation.
        missing: `error`, or `mask`: missing inputs are 0, with an indicator column for each column,
            and missing targets are not scored.
        eval_size: windows of the validation and of the test split, evenly spread; `None`: all.
        path: a CSV or Parquet file.
        sha256: expected SHA-256 of the file; `None`: any.
        time: the time column; `None`: the first column of dates or timestamps.
        group: the column that names a row's series; `None`: one series.
        dataset: a table of the catalogue instead of `path`.
        drop_last: leave out the last windows of validation and test that do not fill a batch, as
            a data loader with `drop_last=True` does. Only for comparison with such code.

    Raises:
        ConfigError: if there is no such column, a value is out of range, no file is given, or its
            SHA-256 differs.
        DataError: if the file cannot be read, values are missing, or a split has no window.
    """

    def __init__(
        self,
        target: str | Sequence[str],
        length: int,
        horizon: int,
        inputs: Literal["all"] | Sequence[str],
        known: Sequence[str],
        calendar: bool,
        splits: Sequence[float] | Sequence[str],
        normalize: Normalize,
        missing: Literal["error", "mask"],
        eval_size: int | None,
        path: str | None = None,
        sha256: str | None = None,
        time: str | None = None,
        group: str | None = None,
        dataset: str | None = None,
        drop_last: bool = False,
        *,
        batch_size: int,
        seed: int,
        data_dir: str | None,
    ) -> None:
        for name, value in {"length": length, "horizon": horizon, "eval_size": eval_size}.items():
            if value is not None and value < 1:
                raise ConfigError(f"task.{name} must be at least 1, not {value}")
        ahead, read = names_of(known), named_columns(target, inputs, known)
        table, checksums = table_of(path, sha256, time, group, read, dataset, data_dir)
        targets, columns = chosen_columns(table, target, inputs, ahead)
        indices = [table.columns.index(name) for name in columns]
        table.check_complete(indices, missing=missing == "mask")
        rows = {name: split_rows(table, own, splits) for name, own in table.series.items()}
        mean, std = fit_scaler(
            table.values[:, indices], [own["train"] for own in rows.values()], targets
        )
        features = TableFeatures(
            time=table.time_column,
            group=group,
            time_step=None if table.step is None else nominal(table.step),
            columns=columns,
            targets=targets,
            known=ahead,
            calendar=calendar_names(table.step) if calendar else [],
            horizon=horizon,
            normalize=normalize,
            masks=missing == "mask",
            mean=mean,
            std=std,
            utc=table.offset is not None and not table.offset,
        )
        cut = [windows(table, name, own, length, horizon) for name, own in rows.items()]
        origins = {split: np.concatenate([own[split] for own in cut]) for split in SPLITS}
        if drop_last:
            for split in ("valid", "test"):
                count = len(origins[split]) // batch_size * batch_size
                origins[split] = origins[split][:count]
                if not count:
                    raise ConfigError(
                        f"task.drop_last leaves no window of the {split} split: lower "
                        f"trainer.batch_size={batch_size}"
                    )
        super().__init__(
            features,
            table,
            origins,
            length,
            eval_size,
            batch_size=batch_size,
            seed=seed,
            data_dir=data_dir,
        )
        self.checksums |= checksums
        self.steps_per_epoch = len(origins["train"]) // batch_size
        if not self.steps_per_epoch:
            raise ConfigError(
                f"trainer.batch_size={batch_size} is more than the {len(origins['train'])} "
                "training windows"
            )
        self.difference = mean_differences(features, table, list(rows.values()))


def table_of(
    path: str | None,
    sha256: str | None,
    time: str | None,
    group: str | None,
    read: list[str] | None,
    dataset: str | None,
    data_dir: str | None,
) -> tuple[Table, dict[str, str]]:
    """Return the table of a file or of a dataset, and the checksums of its files.

    Raises:
        ConfigError: if neither or both are given, or the SHA-256 differs.
        DataError: if the file cannot be read.
    """
    if path is not None and dataset is None:
        table = read_table(path, time, group, read)
        return table, {expand_home(path).name: check_digest(path, sha256)}
    if path is None and dataset is not None:
        (file,) = ensure(dataset, data_dir).values()
        return read_table(str(file), time, group, read), find(dataset).checksums
    if path is None:
        raise ConfigError("no table is given: set task.path=my.csv")
    raise ConfigError(
        f"task.path={path}: the task reads the dataset {dataset}, and task=forecast_file your table"
    )


def mean_differences(
    features: TableFeatures, table: Table, rows: Sequence[Rows]
) -> torch.Tensor | None:
    """Return the mean absolute seasonal difference of each scaled target over the training rows.

    `None` if that of a target is 0 or does not exist, as in less than a season of training rows.

    Args:
        features: name and scale the targets.
        table: the table.
        rows: of the splits of each series.
    """
    count = len(features.targets)
    mean, std, places = features.mean[:count], features.std[:count], features.indices(table)[:count]
    sums, counts = zip(
        *(
            seasonal_differences((table.values[own["train"]][:, places] - mean) / std, table.period)
            for own in rows
        ),
        strict=True,
    )
    found = np.sum(sums, axis=0) / np.maximum(np.sum(counts, axis=0), 1)
    return torch.from_numpy(found).float() if found.all() else None


def chosen_columns(
    table: Table, target: str | Sequence[str], inputs: str | Sequence[str], known: list[str]
) -> tuple[list[str], list[str]]:
    """Return the targets, and all columns that a model reads, which begin with them.

    Raises:
        ConfigError: if there is no such column, no target, or a target is known ahead.
    """
    targets = names_of(target)
    if targets == ["all"]:
        targets = [name for name in table.columns if name not in known]
    others = names_of(inputs)
    if others == ["all"]:
        others = [name for name in table.columns if name not in targets]
    for key, names in {"target": targets, "inputs": others, "known": known}.items():
        table.check_columns(names, f"task.{key}")
    if not targets or len(set(targets)) < len(targets):
        raise ConfigError(f"task.target must name columns, each once, not {target}")
    if leaked := [name for name in known if name in targets]:
        raise ConfigError(f"task.known: '{leaked[0]}' is a target, which is not known ahead")
    return targets, list(dict.fromkeys([*targets, *others, *known]))


def named_columns(
    target: str | Sequence[str], inputs: str | Sequence[str], known: str | Sequence[str]
) -> list[str] | None:
    """Return the columns that settings of the task name; `None` if these ask for all."""
    names = [*names_of(target), *names_of(inputs), *names_of(known)]
    return None if "all" in names else names


def names_of(names: str | Sequence[str]) -> list[str]:
    """Return names as a list; a single one may be given as a text."""
    return [names] if isinstance(names, str) else list(names)
