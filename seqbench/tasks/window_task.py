"""Forecast the windows of a table: cut batches from its series, and score answers.

The series lie on the device once; batches are cut from them.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqbench.datasets.table import Table
from seqbench.datasets.time_steps import zone_name
from seqbench.errors import DataError
from seqbench.spec import Features, SequenceSpec, Values
from seqbench.tasks.naive import naive_scores
from seqbench.tasks.table_features import TableFeatures
from seqbench.tasks.task import Batch, Primary, Split, Task, shuffled
from seqbench.tasks.window_batch import ForecastBatch, look_backs

EVAL_ROWS = 256
# Most targets that get metrics of their own in the original unit.
MOST_NAMED = 8
# The end of a metric at one step of the horizon.
STEP = re.compile(r"_step_\d+$")


class WindowTask(Task):
    """Forecast the windows of a table with features that are fitted already.

    Args:
        features: turn rows into inputs, and answers into their unit.
        table: has the columns of the features.
        origins: split -> `(windows,)`, the last row of each look-back.
        length: time steps of the look-back.
        eval_size: windows of validation and of test, evenly spread; `None`: all.

    Attributes:
        difference: `(targets,)`, the mean absolute seasonal difference of the training rows, for
            the MASE; `None`: it is not known, and there is no MASE.

    Raises:
        DataError: if all targets of validation or test are missing.
    """

    primary = Primary("mse", "min")
    difference: Tensor | None = None

    def __init__(
        self,
        features: TableFeatures,
        table: Table,
        origins: Mapping[Split, NDArray[np.int64]],
        length: int,
        eval_size: int | None,
        *,
        batch_size: int,
        seed: int,
        data_dir: str | None,
    ) -> None:
        super().__init__(batch_size, seed, data_dir)
        self.features, self.length, self.horizon = features, length, features.horizon
        self.time, self.rows_of_series, self.period = table.time, table.series, table.period
        count = len(features.targets)
        values = features.scaled(table)
        self.series = features.model_inputs(values, table)
        self.unit = torch.from_numpy(np.stack([features.mean, features.std])[:, :count]).float()
        self.origins = {split: torch.from_numpy(at) for split, at in origins.items()}
        self._limit_evaluation(eval_size)
        self.spec = SequenceSpec(
            Features(self.series.shape[1]),
            Values(self.horizon * count, self.horizon),
            "last",
            length,
        )
        self._score_naive(values[:, :count], table)
        self._note(table)

    def _limit_evaluation(self, size: int | None) -> None:
        """Keep `size` windows of validation and test, those with a target that is not missing."""
        for split, at in self.origins.items():
            if split == "train":
                continue
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

    def _note(self, table: Table) -> None:
        """Set the notes: numbers of windows and series, season, gaps, columns that are not read."""
        self.notes |= {f"{split}_windows": len(at) for split, at in self.origins.items()}
        if len(table.series) > 1:
            self.notes["series"] = len(table.series)
        if table.period:
            self.notes["season"] = f"{table.period} time steps"
        if table.gaps:
            self.notes["gaps_in_time"] = table.gaps
        if table.offset is not None:
            self.notes["time_zone"] = zone_name(table.offset)
        if table.ignored:
            self.notes["columns_not_read"] = ", ".join(table.ignored)

    def preprocessing(self) -> dict[str, Any]:
        return self.features.to_json()

    def to(self, device: torch.device) -> None:
        self.series, self.unit = self.series.to(device), self.unit.to(device)
        if self.difference is not None:
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
        }
        if self.difference is not None:
            terms["mase"] = errors.abs() / self.difference
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


def report_steps(horizon: int) -> list[int]:
    """Return the steps of the horizon whose errors are reported: the first, quarters, the last."""
    return sorted({1, *(max(1, horizon * quarter // 4) for quarter in (1, 2, 3, 4))})
