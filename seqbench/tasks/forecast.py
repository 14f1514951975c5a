"""Forecast time series: from the last `length` time steps of a table, the next `horizon`.

At each time step the model reads the target columns, the other columns, an indicator of missing
values for each of them, the columns known ahead as they will be `horizon` steps later, and calendar
features. It answers at the last step. The series lie on the device once; batches are cut from them.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqbench.datasets.catalog import find
from seqbench.datasets.download import ensure
from seqbench.datasets.table import Table, read_table
from seqbench.datasets.time_steps import nominal
from seqbench.errors import ConfigError, DataError
from seqbench.spec import Features, SequenceSpec, Values
from seqbench.tasks.calendar_features import calendar_names
from seqbench.tasks.naive import naive_scores, seasonal_differences
from seqbench.tasks.table_features import TableFeatures, fit_scaler
from seqbench.tasks.task import Batch, Primary, Split, Task, shuffled
from seqbench.tasks.window_batch import ForecastBatch, Normalize, look_backs
from seqbench.tasks.windows import SPLITS, Rows, split_rows, windows
from seqbench.user_files import check_digest, expand_home

EVAL_ROWS = 256
# Most targets that get metrics of their own in the original unit.
MOST_NAMED = 8
# The end of a metric at one step of the horizon.
STEP = re.compile(r"_step_\d+$")


class Forecast(Task):
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

    primary = Primary("mse", "min")

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
        super().__init__(batch_size, seed, data_dir)
        for name, value in {"length": length, "horizon": horizon, "eval_size": eval_size}.items():
            if value is not None and value < 1:
                raise ConfigError(f"task.{name} must be at least 1, not {value}")
        self.length, self.horizon = length, horizon
        table = self._read(path, sha256, time, group, dataset)
        ahead = names_of(known)
        targets, columns = chosen_columns(table, target, inputs, ahead)
        indices = [table.columns.index(name) for name in columns]
        table.check_complete(indices, missing=missing == "mask")
        rows = {name: split_rows(table, own, splits) for name, own in table.series.items()}
        mean, std = fit_scaler(
            table.values[:, indices], [own["train"] for own in rows.values()], targets
        )
        self.features = TableFeatures(
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
        )
        values = self.features.scaled(table)
        self.series = self.features.model_inputs(values, table)
        self.unit = torch.from_numpy(np.stack([mean, std])[:, : len(targets)]).float()
        cut = {name: windows(table, name, own, length, horizon) for name, own in rows.items()}
        self.origins = {
            split: torch.from_numpy(np.concatenate([own[split] for own in cut.values()]))
            for split in SPLITS
        }
        self._limit_evaluation(eval_size, drop_last)
        self.steps_per_epoch = len(self.origins["train"]) // batch_size
        if not self.steps_per_epoch:
            raise ConfigError(
                f"trainer.batch_size={batch_size} is more than the "
                f"{len(self.origins['train'])} training windows"
            )
        count = len(targets)
        self.spec = SequenceSpec(
            Features(self.series.shape[1]), Values(horizon * count, horizon), "last", length
        )
        self.time, self.rows_of_series, self.period = table.time, table.series, table.period
        goals = values[:, :count]
        self._score_naive(goals, table)
        self._measure_differences(goals, rows, table.period)
        self._note(table)

    def _read(
        self,
        path: str | None,
        sha256: str | None,
        time: str | None,
        group: str | None,
        dataset: str | None,
    ) -> Table:
        """Read the table, and set the checksums."""
        if (path is None) == (dataset is None):
            raise ConfigError("no table is given: set task.path=my.csv")
        if dataset is not None:
            (file,) = ensure(dataset, self.data_dir).values()
            self.checksums |= find(dataset).checksums
            return read_table(str(file), time, group)
        assert path is not None
        table = read_table(path, time, group)
        self.checksums[expand_home(path).name] = check_digest(path, sha256)
        return table

    def _limit_evaluation(self, size: int | None, drop_last: bool) -> None:
        """Keep `size` windows of validation and test, those with a target that is not missing."""
        for split in ("valid", "test"):
            at = self.origins[split]
            if drop_last:
                at = at[: len(at) // self.batch_size * self.batch_size]
                if not len(at):
                    raise ConfigError(
                        f"task.drop_last leaves no window of the {split} split: lower "
                        f"trainer.batch_size={self.batch_size}"
                    )
            if self.features.masks:
                parts = at.split(4096)
                at = torch.cat([p[self._observed(p).flatten(1).any(1)] for p in parts])
                if not len(at):
                    raise DataError(f"all targets of the {split} split are missing")
            if size is not None and size < len(at):
                at = at[torch.arange(size) * len(at) // size]
            self.origins[split] = at

    def _score_naive(self, goals: NDArray[np.float64], table: Table) -> None:
        """Set the scores of naive forecasts on test, and the best of them."""
        tested, parts = self.origins["test"].numpy(), []
        for own in table.series.values():
            inside = tested[(tested >= own.start) & (tested < own.stop)]
            if len(inside):
                past = int(inside[0]) + 1 - own.start
                # Without missing values, forecasts depend on the last season at most.
                past = past if self.features.masks else min(past, table.period or 1)
                first = int(inside[0]) + 1 - past
                parts.append((goals[first : own.stop], inside - first))
        self.naive = naive_scores(parts, self.horizon, table.period)
        self.baseline = min(self.naive.values())

    def _measure_differences(
        self, goals: NDArray[np.float64], rows: dict[str, Rows], period: int | None
    ) -> None:
        """Set `difference`, the mean absolute seasonal difference of each target, for the MASE."""
        found = [seasonal_differences(goals[own["train"]], period) for own in rows.values()]
        total, count = (np.sum(part, axis=0) for part in zip(*found, strict=True))
        mean = total / np.maximum(count, 1)
        self.difference = torch.from_numpy(np.where(mean > 0, mean, 1.0)).float()

    def _note(self, table: Table) -> None:
        """Set the notes: numbers of windows and series, season, columns that are not read."""
        self.notes |= {f"{split}_windows": len(at) for split, at in self.origins.items()}
        if len(table.series) > 1:
            self.notes["series"] = len(table.series)
        if table.period:
            self.notes["season"] = f"{table.period} time steps"
        if table.gaps:
            self.notes["gaps_in_time"] = table.gaps
        if table.ignored:
            self.notes["columns_not_read"] = ", ".join(table.ignored)

    def preprocessing(self) -> dict[str, Any]:
        return self.features.to_json()

    def to(self, device: torch.device) -> None:
        self.series, self.unit = self.series.to(device), self.unit.to(device)
        self.difference = self.difference.to(device)
        self.origins = {split: at.to(device) for split, at in self.origins.items()}

    def train_batch(self, step: int) -> Batch:
        epoch, index = divmod(step, self.steps_per_epoch)
        at = self.origins["train"]
        order = shuffled(len(at), self.seed, epoch, at.device)
        return self._windows(at[order[index * self.batch_size : (index + 1) * self.batch_size]])

    def eval_batches(self, split: Split) -> Iterator[Batch]:
        for at in self.origins[split].split(EVAL_ROWS):
            yield self._windows(at)

    def _windows(self, at: Tensor) -> ForecastBatch:
        """Return the batch of the windows with origins `at`, `(batch,)`."""
        batch = ForecastBatch(
            look_backs(self.series, at, self.length),
            self.series[:, : len(self.features.targets)][self._future(at)],
            observed=self._observed(at) if self.features.masks else None,
        )
        return self.features.normalized(batch)

    def _future(self, at: Tensor) -> Tensor:
        """Return the rows of the horizon after each origin, `(batch, horizon)`."""
        return at[:, None] + torch.arange(1, self.horizon + 1, device=at.device)

    def _observed(self, at: Tensor) -> Tensor:
        """Return the targets that are not missing, `(batch, horizon, targets)` bool."""
        first, count = len(self.features.columns), len(self.features.targets)
        indicators = self.series[:, first : first + count]
        return indicators[self._future(at)] == 0

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return the mean squared error of the scaled values that are not missing."""
        return self._errors(outputs, batch).square().sum() / batch.scored_count()

    def _errors(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return the errors of the scaled values, `(batch, horizon, targets)`; 0 where missing."""
        assert isinstance(batch, ForecastBatch)
        errors = batch.answer(outputs) - batch.targets
        return errors if batch.observed is None else errors * batch.observed

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, tuple[Tensor, int]]:
        """Return sums of errors over the batch, in all and at some steps of the horizon.

        `mse` and `mae` are of scaled values; `smape` (in percent) and `mase` of the original ones.
        `<target>_mae` and `<target>_rmse` are in the unit of a target; the latter is squared here.
        """
        assert isinstance(batch, ForecastBatch)
        errors = self._errors(outputs, batch)
        targets, (mean, std) = self.features.targets, self.unit
        original = errors.abs() * std
        truth = batch.targets * std + mean
        size = truth.abs() + (truth + errors * std).abs()
        terms = {
            "mse": errors.square(),
            "mae": errors.abs(),
            "smape": 200 * original / size.clamp(min=1e-30),
            "mase": errors.abs() / self.difference,
        }
        seen = torch.ones_like(errors) if batch.observed is None else batch.observed.float()
        counts = seen.sum(0).long().cpu()
        found: dict[str, tuple[Tensor, int]] = {}
        for name, term in terms.items():
            found |= self._by_step(name, term.sum(0), counts)
        if len(targets) <= MOST_NAMED:
            for name, term in {"mae": original, "rmse": original.square()}.items():
                of_steps = term.sum(0)
                for i, target in enumerate(targets):
                    own = self._by_step(f"{target}_{name}", of_steps[:, [i]], counts[:, [i]])
                    several = len(targets) > 1
                    found |= dict(list(own.items())[:1]) if several else own
        return found

    def scored_part(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return answers and targets in their unit, `(batch, horizon * targets)`.

        A missing target is NaN.
        """
        assert isinstance(batch, ForecastBatch)
        targets = batch.targets
        if batch.observed is not None:
            targets = targets.where(batch.observed, torch.nan)
        mean, std = self.unit
        answer = batch.answer(outputs) * std + mean
        return answer.flatten(1), (targets * std + mean).flatten(1)

    def _by_step(self, name: str, term: Tensor, counts: Tensor) -> dict[str, tuple[Tensor, int]]:
        """Return the sum of `(horizon, targets)`, and that of single steps, with their counts."""
        found = {name: (term.sum(), int(counts.sum()))}
        for step in report_steps(self.horizon):
            found[f"{name}_step_{step}"] = term[step - 1].sum(), int(counts[step - 1].sum())
        return {key: (total, count) for key, (total, count) in found.items() if count}

    def metrics_of(self, means: dict[str, float]) -> dict[str, float]:
        """Take the root of the squared errors in the unit of a target."""
        squared = {f"{target}_rmse" for target in self.features.targets}
        return {k: v**0.5 if STEP.sub("", k) in squared else v for k, v in means.items()}


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


def names_of(names: str | Sequence[str]) -> list[str]:
    """Return names as a list; a single one may be given as a text."""
    return [names] if isinstance(names, str) else list(names)


def report_steps(horizon: int) -> list[int]:
    """Return the steps of the horizon whose errors are reported: the first, quarters, the last."""
    return sorted({1, *(max(1, horizon * quarter // 4) for quarter in (1, 2, 3, 4))})
