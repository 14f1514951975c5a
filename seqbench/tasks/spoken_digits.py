"""Classify spoken digits from their raw waveform (Free Spoken Digit Dataset)."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from seqbench.datasets.catalog import find
from seqbench.datasets.spoken_digits import load_spoken_digits
from seqbench.tasks.classification import Classification, Pool
from seqbench.tasks.task import Split

# The official test split: the first recordings of each digit by each speaker. Validation has as
# many after them.
OFFICIAL = {"test": range(5), "valid": range(5, 10)}
# Of six speakers, in alphabetical order, the last two.
HELD_OUT = {"valid": -2, "test": -1}


class SpokenDigits(Classification):
    """Spoken digits: 50 recordings of each digit by each of six speakers.

    Inputs are the samples of the waveform, `(batch, time, 1)`, scaled; a recording has 0.14 to 2.3
    seconds.

    Args:
        rate: samples per second; below 8000 the recordings are low-pass filtered and thinned.
        split: `official`: test has recordings 0 to 4 of each digit by each speaker, validation 5 to
            9, so that all speakers are known. `speaker`: test has the recordings of one speaker,
            validation those of another, and training those of the other four.
        pool: as for `Classification`, like the next two.
        class_weight: `balanced` or `None`.
        eval_size: sequences of validation and of test; `None`: all.

    Raises:
        ConfigError: if a value is out of range.
        DataError: if the dataset cannot be downloaded or read.
    """

    def __init__(
        self,
        rate: Literal[8000, 4000, 2000],
        split: Literal["official", "speaker"],
        pool: Pool,
        class_weight: Literal["balanced"] | None,
        eval_size: int | None,
        *,
        batch_size: int,
        seed: int,
        data_dir: str | None,
    ) -> None:
        super().__init__(
            pool,
            "error",
            class_weight,
            eval_size,
            batch_size=batch_size,
            seed=seed,
            data_dir=data_dir,
        )
        digits = load_spoken_digits(rate, data_dir)
        self.checksums |= find("spoken_digits").checksums
        speakers = np.array(digits.speakers)
        if split == "official":
            held_out = {name: np.isin(digits.numbers, list(own)) for name, own in OFFICIAL.items()}
        else:
            order = sorted(set(digits.speakers))
            held_out = {name: speakers == order[i] for name, i in HELD_OUT.items()}
            self.notes |= {f"{name}_speaker": order[i] for name, i in HELD_OUT.items()}
        rows: dict[Split, NDArray[np.int64]] = {
            "train": np.flatnonzero(~(held_out["valid"] | held_out["test"])),
            "valid": np.flatnonzero(held_out["valid"]),
            "test": np.flatnonzero(held_out["test"]),
        }
        self.set_data(digits.recordings, rows)
