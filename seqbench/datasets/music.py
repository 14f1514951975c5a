"""Load polyphonic music as piano rolls (Boulanger-Lewandowski, Bengio, Vincent 2012).

The files are those of the code of Bai, Kolter and Koltun (2018): for each split an array of piano
rolls, `(steps, 88)`, 1 where a key sounds.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seqbench.datasets.catalog import find
from seqbench.datasets.download import ensure
from seqbench.errors import ConfigError, DataError

KEYS = 88
NAMES = {"train": "traindata", "valid": "validdata", "test": "testdata"}
Rolls = list[NDArray[np.uint8]]


def load_music(name: str, data_dir: str | None) -> tuple[dict[str, Rolls], dict[str, str]]:
    """Return the piano rolls of each split of a dataset, `(steps, 88)` each, and its checksums.

    Args:
        name: a dataset of the catalogue.
        data_dir: folder of the datasets.

    Raises:
        ConfigError: if scipy is not installed.
        DataError: if the file cannot be downloaded or read.
    """
    (file,) = ensure(name, data_dir).values()
    return read_rolls(file), find(name).checksums


def read_rolls(file: Path) -> dict[str, Rolls]:
    """Read a MATLAB file of piano rolls. Such a file contains no code.

    Raises:
        ConfigError: if scipy is not installed.
        DataError: if the file is damaged or has other contents.
    """
    try:
        from scipy.io import loadmat  # type: ignore[import-untyped]
    except ModuleNotFoundError:
        raise ConfigError("music needs scipy: pip install 'seqbench[music]'") from None
    try:
        arrays = loadmat(file, variable_names=list(NAMES.values()))
    except Exception as error:  # any kind: the reader checks little
        raise DataError(f"cannot read {file}: {type(error).__name__}: {error}") from error
    found: dict[str, Rolls] = {}
    for split, name in NAMES.items():
        if name not in arrays:
            raise DataError(f"{file}: expected the arrays {', '.join(NAMES.values())}")
        rolls = list(np.asarray(arrays[name]).ravel())
        for number, roll in enumerate(rolls, start=1):
            shape = np.shape(roll)
            if len(shape) != 2 or shape[1] != KEYS or not np.isin(roll, (0, 1)).all():
                raise DataError(
                    f"{file}: {name}, sequence {number}: expected (steps, {KEYS}) of 0 and 1, got "
                    f"shape {shape}"
                )
        found[split] = [np.asarray(roll, np.uint8) for roll in rolls]
    return found
