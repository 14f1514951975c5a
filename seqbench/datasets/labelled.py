"""Define sequences of numbers that have classes, as they are read from a file."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from seqbench.errors import ConfigError, DataError
from seqbench.wording import plain, suggestion

# Errors quote at most so many characters of a file.
QUOTED = 40


@dataclass(frozen=True, eq=False)
class Labelled:
    """Sequences of numbers, each with a class.

    Attributes:
        path: the file.
        channels: names of the channels.
        values: `(steps, channels)` float64, of one sequence after the other; NaN where missing.
        lengths: `(sequences,)` int64, the steps of each sequence, at least 1.
        labels: the class of each sequence; `None`: the file has none.
        names: the name of each sequence; empty: they have none.
    """

    path: str
    channels: tuple[str, ...]
    values: NDArray[np.float64]
    lengths: NDArray[np.int64]
    labels: tuple[str, ...] | None
    names: tuple[str, ...] = ()

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Return the place of each sequence's first step in `values`, `(sequences,)`."""
        return self.lengths.cumsum() - self.lengths

    def place(self, row: int) -> str:
        """Return the file and a step of `values`, to begin an error with."""
        sequence = int(np.searchsorted(self.starts, row, side="right")) - 1
        name = f"'{plain(self.names[sequence])}'" if self.names else f"{sequence + 1}"
        return f"{self.path}, sequence {name}, step {row - self.starts[sequence] + 1}"

    def check_complete(self, *, missing: bool, hint: str) -> None:
        """Raise `DataError` at the first infinite value, and unless allowed, missing value.

        Args:
            missing: missing values are allowed.
            hint: ends the error on a missing value.
        """
        wrong = np.isinf(self.values) if missing else ~np.isfinite(self.values)
        if not wrong.any():
            return
        row, column = (int(at[0]) for at in wrong.nonzero())
        place, name = self.place(row), plain(self.channels[column])
        if np.isinf(self.values[row, column]):
            raise DataError(f"{place}: {name} is infinite, expected a finite number")
        raise DataError(f"{place}: {name} is missing; {hint}")

    def check_channel_count(self, expected: int) -> None:
        """Raise `DataError` if channels without names are not as many as in the training file."""
        found = len(self.channels)
        if self.channels == numbered_channels(found) and found != expected:
            raise DataError(
                f"{self.path}: expected {expected} channels, as in the training file, got {found}"
            )

    def of_channels(self, names: Sequence[str], key: str) -> "Labelled":
        """Return the sequences with the named channels alone, in the order of the names.

        Args:
            names: at least one.
            key: what gives the names, for the error.

        Raises:
            ConfigError: if there is no such channel.
        """
        for name in names:
            if name not in self.channels:
                hint = suggestion(name, self.channels)
                raise ConfigError(f"{key}: {self.path} has no channel '{plain(name)}'{hint}")
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"{key} must name channels, each once, not {list(names)}")
        chosen = [self.channels.index(name) for name in names]
        if chosen == [*range(len(self.channels))]:
            return self
        return replace(self, channels=tuple(names), values=self.values[:, chosen])

    def followed_by(self, other: "Labelled") -> "Labelled":
        """Return these sequences and those of another file, which has the same channels."""
        assert self.labels is not None
        assert other.labels is not None
        return replace(
            self,
            values=np.concatenate([self.values, other.values]),
            lengths=np.concatenate([self.lengths, other.lengths]),
            labels=self.labels + other.labels,
            names=(),
        )


def numbered_channels(count: int) -> tuple[str, ...]:
    """Return names for channels of a file that names none: `channel_1`, `channel_2`, ..."""
    return tuple(f"channel_{i + 1}" for i in range(count))


def likely_counters(data: Labelled) -> list[str]:
    """Return the channels that rise by 1 from each step of a sequence to the next."""
    inside = np.ones(len(data.values), np.bool_)
    inside[data.starts] = False
    rises = data.values[inside] - data.values[np.roll(inside, -1)]
    if not len(rises):
        return []
    found = (rises == 1).all(0).tolist()
    return [name for name, is_counter in zip(data.channels, found, strict=True) if is_counter]


def class_names(labels: Sequence[str]) -> list[str]:
    """Return the classes, numbers in their order, other names in that of the alphabet."""
    names = sorted(set(labels))
    try:
        return sorted(names, key=float)
    except ValueError:
        return names


def quoted(text: str) -> str:
    """Return a text of a file for an error, cut to `QUOTED` characters."""
    text = plain(text)
    return f"'{text[:QUOTED]}...'" if len(text) > QUOTED else f"'{text}'"
