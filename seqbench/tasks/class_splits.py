"""Split labelled examples by class, and choose fewer of them for training."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from seqbench.errors import ConfigError, DataError
from seqbench.tasks.task import Split
from seqbench.wording import plain


def file_splits(
    labels: Sequence[str],
    valid_size: float,
    test_size: float | None,
    seed: int,
    path: str,
    test_count: int | None = None,
) -> dict[Split, NDArray[np.int64]]:
    """Return the places of the examples of each split; those of a test file follow the others.

    Args:
        labels: the class of each example of the file, without those of the test file.
        valid_size: fraction for validation.
        test_size: fraction for test; unused with a test file.
        seed: of the random choice.
        path: the file, for errors.
        test_count: examples of the test file; `None`: test is split off the file.

    Raises:
        ConfigError, DataError: as for `stratified`.
    """
    fractions: dict[Split, float] = {"valid": valid_size}
    if test_count is None and test_size is not None:
        fractions["test"] = test_size
    rows = stratified(labels, fractions, seed, path)
    if test_count is not None:
        rows["test"] = np.arange(test_count) + len(labels)
    return rows


def stratified(
    labels: Sequence[str], fractions: dict[Split, float], seed: int, path: str
) -> dict[Split, NDArray[np.int64]]:
    """Return the places of the examples of each split, in the order of the file.

    Args:
        labels: the class of each example.
        fractions: split -> fraction of the examples of each class, at least one; the others are
            for training.
        seed: of the random choice.
        path: the file, for errors.

    Raises:
        ConfigError: if fractions are not above 0, or leave nothing for training.
        DataError: if a class has fewer examples than there are splits.
    """
    for name, fraction in fractions.items():
        if not 0 < fraction < 1:
            raise ConfigError(f"task.{name}_size must be above 0 and below 1, not {fraction}")
    if sum(fractions.values()) >= 1:
        sizes = " and ".join(f"task.{name}_size={size}" for name, size in fractions.items())
        raise ConfigError(f"{sizes} leave no examples for training")
    # RandomState's streams never change, so every version of numpy gives the same splits.
    random = np.random.RandomState(seed)
    # Of objects: in an array of texts, each takes the memory of the longest.
    names = np.array(labels, dtype=object)
    found: dict[Split, list[NDArray[np.int64]]] = {**{name: [] for name in fractions}, "train": []}
    for label in dict.fromkeys(labels):
        rows = random.permutation(np.flatnonzero(names == label))
        if len(rows) <= len(fractions):
            raise DataError(
                f"{path}: class '{plain(label)}' has {len(rows)} examples, expected at least "
                f"{len(fractions) + 1}, one for each of train, {' and '.join(fractions)}"
            )
        size = len(rows)
        for i, (name, fraction) in enumerate(fractions.items()):
            # At least one example remains for each later split and for training.
            taken = min(max(1, round(fraction * size)), len(rows) - len(fractions) + i)
            own, rows = rows[:taken], rows[taken:]
            found[name].append(own)
        found["train"].append(rows)
    return {name: np.sort(np.concatenate(parts)) for name, parts in found.items()}


def fewer(
    labels: Sequence[str], rows: NDArray[np.int64], size: int | None, seed: int
) -> NDArray[np.int64]:
    """Return some training rows, with the fractions of the classes, in the order of the file.

    Those of a smaller size are among those of a larger one, and each class has at least one.

    Args:
        labels: the class of each row of the file.
        rows: the training rows.
        size: how many are returned; `None`: all.
        seed: of the random choice.

    Raises:
        ConfigError: if `size` is below the number of classes or above that of the rows.
    """
    if size is None:
        return rows
    names = np.array([labels[row] for row in rows], dtype=object)
    classes = list(dict.fromkeys(names))
    if not len(classes) <= size <= len(rows):
        raise ConfigError(
            f"task.train_size={size}: expected {len(classes)}, the number of classes, to "
            f"{len(rows):,}, the number of training examples"
        )
    random = np.random.RandomState(seed)
    # Rank each row within its class, from 0 to 1: the first rows by rank have all classes.
    place = np.empty(len(rows))
    for name in classes:
        own = random.permutation(np.flatnonzero(names == name))
        place[own] = np.arange(len(own)) / len(own)
    return np.sort(rows[place.argsort(kind="stable")[:size]])
