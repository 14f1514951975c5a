"""Observe the forecasts of an evaluation: all of them as rows of a table, and a few to be drawn."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqbench.datasets.time_steps import moment, without_midnight
from seqbench.errors import ConfigError
from seqbench.runs.forecasts import ForecastWindow, Lines
from seqbench.tasks.naive import filled_forward
from seqbench.tasks.task import Batch, Split
from seqbench.tasks.window_batch import ForecastBatch
from seqbench.tasks.window_task import WindowTask
from seqbench.training.predictions import Columns
from seqbench.wording import plain

# Most windows to choose those to draw from, and most targets and past time steps that are kept.
MOST_WINDOWS, MOST_TARGETS, MOST_PAST = 512, 4, 400


class Clock:
    """The time of each row and the series that it belongs to.

    Args:
        task: gives the rows.
    """

    def __init__(self, task: WindowTask) -> None:
        self.names = np.array(list(task.rows_of_series), dtype=object)
        slices = task.rows_of_series.values()
        self.starts = np.array([own.start for own in slices])
        # Without a time column, rows are numbered from 1 in each series, as by `predict`.
        rows = [np.arange(1, own.stop - own.start + 1) for own in slices]
        self.times: NDArray[np.generic] = (
            np.concatenate(rows) if task.time is None else without_midnight(task.time)
        )

    def numbers(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of the series of each row."""
        return np.searchsorted(self.starts, rows, "right") - 1


class ForecastRows:
    """Turns the outputs of `Trainer.evaluate`, as its `observe`, into rows of a table.

    A row is a time step of a window: the window's `index`, its `series` if there are several, its
    `origin`, the `step` of the horizon from 1, and the `time`. `target` and `prediction` follow in
    their unit; of several targets, as `target_NAME`.

    Args:
        task: gives the batches.
        split: of the evaluation.
        write: receives the columns of each batch.
    """

    def __init__(self, task: WindowTask, split: Split, write: Callable[[Columns], None]) -> None:
        self.task, self.write, self.clock = task, write, Clock(task)
        self.origins, self.done = task.origins[split].cpu().numpy(), 0

    def __call__(self, outputs: Tensor, batch: Batch, given: Batch) -> None:
        """Write the rows of a batch."""
        answer, truth = in_unit(self.task, outputs, batch)
        horizon, first = self.task.horizon, self.done
        self.done += len(answer)
        at, clock = self.origins[first : self.done], self.clock
        steps = np.arange(1, horizon + 1)
        columns: Columns = {"index": np.arange(first, self.done).repeat(horizon)}
        if len(clock.names) > 1:
            columns["series"] = clock.names[clock.numbers(at)].repeat(horizon)
        columns["origin"] = clock.times[at].repeat(horizon)
        columns["step"] = np.tile(steps, len(at))
        columns["time"] = clock.times[at[:, None] + steps].ravel()
        targets = self.task.features.targets
        for name, values in {"target": truth, "prediction": answer}.items():
            for i, target in enumerate(targets):
                key = name if len(targets) == 1 else f"{name}_{target}"
                columns[key] = values[..., i].ravel()
        self.write(columns)


class ForecastSample:
    """Chooses windows of the test to draw: the first, of the median error, and the worst.

    They are chosen among `MOST_WINDOWS` that are evenly spread.

    Args:
        task: gives the batches.
        index: of the only window to draw; `None`: choose.
    """

    def __init__(self, task: WindowTask, index: int | None = None) -> None:
        self.task, self.clock, self.done = task, Clock(task), 0
        self.origins = task.origins["test"].cpu()
        count = min(MOST_WINDOWS, len(self.origins))
        self.chosen = torch.arange(count) * len(self.origins) // count
        self.index = index
        if index is not None:
            self.chosen = torch.tensor([index])
        self.answers: list[NDArray[np.float64]] = []
        self.errors: list[float] = []

    def __call__(self, outputs: Tensor, batch: Batch, given: Batch) -> None:
        """Keep the answers to the chosen windows of a batch, and their scaled errors."""
        inside = self.chosen[(self.chosen >= self.done) & (self.chosen < self.done + len(outputs))]
        places = (inside - self.done).to(outputs.device)
        self.done += len(outputs)
        answer, truth = in_unit(self.task, outputs, batch)
        std = self.task.features.std[: answer.shape[2]]
        for place in places.tolist():
            error = ((answer[place] - truth[place]) / std) ** 2
            self.answers.append(answer[place])
            self.errors.append(float(error[~np.isnan(error)].mean()))

    def windows(self) -> list[ForecastWindow]:
        """Return the windows to draw, each once."""
        if self.index is not None:
            return [self.window(0, f"window {self.index}")]
        order = np.argsort(self.errors, kind="stable")
        places = {"first": 0, "median error": order[len(order) // 2], "worst": order[-1]}
        kept: dict[int, str] = {}
        for name, place in places.items():
            kept.setdefault(int(place), name)
        return [self.window(place, name) for place, name in kept.items()]

    def window(self, place: int, name: str) -> ForecastWindow:
        """Return a chosen window with the end of its look-back and a naive forecast."""
        task, features = self.task, self.task.features
        at = int(self.origins[self.chosen[place]])
        number = int(self.clock.numbers(np.array([at]))[0])
        past = min(task.length, MOST_PAST, max(2 * task.horizon, task.period or 1))
        rows = np.arange(at + 1 - past, at + 1 + task.horizon)
        count = min(MOST_TARGETS, len(features.targets))
        values = in_unit_of(task, rows)
        naive, naive_name = naive_forecast(task, at, int(self.clock.starts[number]))
        lines = {
            target: Lines(
                listed(values[:past, i]),
                listed(values[past:, i]),
                listed(self.answers[place][:, i]),
                listed(naive[:, i]),
            )
            for i, target in enumerate(features.targets[:count])
        }
        times = self.clock.times[rows]
        if times.dtype == "datetime64[us]" and (times.astype("datetime64[s]") == times).all():
            times = times.astype("datetime64[s]")
        return ForecastWindow(
            name=name,
            series=str(self.clock.names[number]),
            error=self.errors[place],
            times=times.astype(str).tolist() if task.time is not None else times.tolist(),
            naive=naive_name,
            lines=lines,
        )


def index_of(task: WindowTask, typed: str) -> int:
    """Return the index of a window of the test split.

    Args:
        task: gives the windows.
        typed: the index from 0, or the time of the first step of its horizon; of several series,
            the first with that time.

    Raises:
        ConfigError: if there is no such window.
    """
    count = len(task.origins["test"])
    expected = f"0 to {count - 1:,}"
    if typed.isdecimal():
        if int(typed) < count:
            return int(typed)
    elif task.time is not None:
        times = task.time[task.origins["test"].cpu().numpy() + 1]
        try:
            found = np.flatnonzero(times == np.datetime64(typed))
        except ValueError:
            found = np.array([])
        if len(found):
            return int(found[0])
        expected += f", or the first time of a horizon, {moment(times.min())} to "
        expected += moment(times.max())
    raise ConfigError(f"--window: expected {expected}, got '{plain(typed)}'")


def in_unit(
    task: WindowTask, outputs: Tensor, batch: Batch
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return answers and targets in their unit, `(batch, horizon, targets)`; NaN where missing."""
    assert isinstance(batch, ForecastBatch)
    answer = task.features.original(batch.answer(outputs))
    truth = task.features.original(batch.targets)
    if batch.observed is not None:
        truth[~batch.observed.cpu().numpy()] = np.nan
    return answer, truth


def in_unit_of(task: WindowTask, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the targets of rows in their unit, `(rows, targets)`; NaN where missing."""
    count, columns = len(task.features.targets), len(task.features.columns)
    found = task.series[torch.from_numpy(rows).to(task.series.device)].cpu()
    values = task.features.original(found[:, :count])
    if task.features.masks:
        values[found[:, columns : columns + count].numpy() > 0] = np.nan
    return values


def naive_forecast(task: WindowTask, at: int, start: int) -> tuple[NDArray[np.float64], str]:
    """Return the seasonal naive forecast after a row, or the best other one, and its name.

    Args:
        task: gives the rows.
        at: the row.
        start: the first row of its series.
    """
    name = "seasonal naive"
    if name not in task.naive or task.period is None:
        name = min(task.naive, key=task.naive.__getitem__)
    if name == "train mean":
        mean = task.features.mean[: len(task.features.targets)]
        return np.tile(mean, (task.horizon, 1)), name
    season = task.period if name == "seasonal naive" and task.period else 1
    # As in `naive_scores`, a missing value is the last known one.
    known = filled_forward(in_unit_of(task, np.arange(start, at + 1)))
    return known[len(known) - season + np.arange(task.horizon) % season], name


def listed(values: NDArray[np.float64]) -> list[float | None]:
    """Return values as JSON has them, `None` where missing."""
    return [None if np.isnan(value) else float(value) for value in values]
