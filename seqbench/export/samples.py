"""Make inputs to check an exported model with, and the answers of the run to them.

They are of the run's test split if its data are there, and random otherwise.
"""

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from seqbench.datasets.table import Table
from seqbench.errors import SeqbenchError
from seqbench.experiment.forecasting import scaled_forecast
from seqbench.experiment.saved_run import SavedRun
from seqbench.spec import Features, Tokens
from seqbench.tasks.forecast import Forecast
from seqbench.tasks.sequence_features import SequenceFeatures
from seqbench.tasks.table_features import TableFeatures
from seqbench.tasks.window_batch import look_backs

# Sequences of the test split to cut samples from, and look-backs of a series.
SEQUENCES, LOOK_BACKS = 8, 3


class Samples(ABC):
    """Inputs of any batch size and length.

    Attributes:
        source: where they are from, for the user.
        unit: what differences of answers are divided by.
    """

    source = "random inputs"
    unit: Tensor = torch.ones(())

    @abstractmethod
    def inputs(self, batch: int, time: int) -> list[Tensor]:
        """Return inputs of the graph, `(batch, time, ...)`."""

    @abstractmethod
    def answer(self, batch: int, time: int) -> Tensor:
        """Return what the run answers to `inputs(batch, time)`, without autocast."""


class Sequences(Samples):
    """Sequences of tokens or features."""

    def __init__(self, saved: SavedRun) -> None:
        self.saved = saved
        kind, length = saved.spec.input, saved.spec.length
        try:
            found = next(iter(saved.task.eval_batches("test"))).inputs[:SEQUENCES]
            self.sequences, self.source = found.cpu(), "the test split"
        except SeqbenchError:
            random = torch.Generator().manual_seed(0)
            if isinstance(kind, Tokens):
                size = (SEQUENCES, length)
                self.sequences = torch.randint(kind.vocab_size, size, generator=random)
            else:
                assert isinstance(kind, Features)
                self.sequences = torch.randn(SEQUENCES, length, kind.dim, generator=random)

    def inputs(self, batch: int, time: int) -> list[Tensor]:
        rows = torch.arange(batch) % len(self.sequences)
        steps = torch.arange(time) % self.sequences.shape[1]
        return [self.sequences[rows][:, steps]]

    @torch.no_grad()
    def answer(self, batch: int, time: int) -> Tensor:
        outputs, _ = self.saved.model(*self.inputs(batch, time))
        return outputs


class Labelled(Sequences):
    """Sequences of a classifier, in the units of the channels.

    The answers are computed as `seqbench predict` does.
    """

    def __init__(self, saved: SavedRun, features: SequenceFeatures) -> None:
        super().__init__(saved)
        self.features = features
        self.sequences = torch.from_numpy(unscaled(self.sequences.double().numpy(), features))

    @torch.no_grad()
    def answer(self, batch: int, time: int) -> Tensor:
        (values,) = self.inputs(batch, time)
        inputs = torch.from_numpy(self.features.model_inputs(values.numpy()))
        return self.saved.model(inputs)[0].float().softmax(-1)


class LookBacks(Samples):
    """Look-backs of a forecasting run, in the units of the columns.

    The answers are computed as `seqbench predict` does.
    """

    def __init__(self, saved: SavedRun, features: TableFeatures) -> None:
        self.saved, self.features = saved, features
        self.unit = torch.from_numpy(features.std[: len(features.targets)])
        try:
            assert isinstance(saved.task, Forecast)
            self.table, self.source = test_rows(saved.task), "the test split"
        except SeqbenchError:
            self.table = random_rows(saved.spec.length, features)
        self.series = features.model_inputs(features.scaled(self.table), self.table)

    def origins(self, batch: int, time: int) -> Tensor:
        """Return the last rows of look-backs of a length."""
        last = len(self.table.values) - 1 - self.features.horizon
        return torch.linspace(last, min(time - 1, last), batch).long()

    def inputs(self, batch: int, time: int) -> list[Tensor]:
        features, at = self.features, self.origins(batch, time)
        values = torch.from_numpy(self.table.values)
        found = [look_backs(values, at, time)]
        if features.known:
            known = values[:, [features.columns.index(name) for name in features.known]]
            found.append(look_backs(known, at + features.horizon, time))
        if features.calendar:
            assert self.table.time is not None
            seconds = self.table.time.astype("datetime64[s]").astype(np.int64)
            found.append(look_backs(torch.from_numpy(seconds), at, time))
        return found

    def answer(self, batch: int, time: int) -> Tensor:
        inputs = look_backs(self.series, self.origins(batch, time), time)
        answer = scaled_forecast(self.saved, self.features, inputs).double()
        count = len(self.features.targets)
        return answer * self.unit + torch.from_numpy(self.features.mean[:count])


def test_rows(task: Forecast) -> Table:
    """Return the rows around the last windows of the test split, of one series."""
    features, last = task.features, int(task.origins["test"][-1])
    own = next(own for own in task.rows_of_series.values() if own.start <= last < own.stop)
    first = max(own.start, last + 1 - LOOK_BACKS * task.length)
    rows = slice(first, last + 1 + features.horizon)
    values = unscaled(task.series[rows].cpu().double().numpy(), features)
    return table_of(features, values, None if task.time is None else task.time[rows])


def unscaled(inputs: np.ndarray, features: TableFeatures | SequenceFeatures) -> np.ndarray:
    """Return raw values of model inputs `(..., dim)`, NaN where the inputs say so."""
    count = len(features.mean)
    values: np.ndarray = inputs[..., :count] * features.std + features.mean
    if features.masks:
        values[inputs[..., count : 2 * count] > 0] = np.nan
    return values


def random_rows(length: int, features: TableFeatures) -> Table:
    """Return rows with the means and deviations of the training rows."""
    count = LOOK_BACKS * length + features.horizon
    random = np.random.default_rng(0)
    values = random.normal(features.mean, features.std, (count, len(features.columns)))
    steps = np.arange(count) * np.timedelta64(features.time_step or 1, "us")
    return table_of(features, values, np.datetime64("2024-02-01", "us") + steps)


def table_of(features: TableFeatures, values: np.ndarray, time: np.ndarray | None) -> Table:
    """Return rows of one series as a table with the columns of a run."""
    return Table(
        path="",
        columns=tuple(features.columns),
        values=values,
        numbers=np.arange(1, len(values) + 1),
        time=time,
        time_column=features.time,
        series={"": slice(0, len(values))},
        ignored=(),
    )
