"""Classify spoken digits from their raw waveform (Free Spoken Digit Dataset)."""

import re
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from seqbench.datasets.catalog import find
from seqbench.datasets.download import ensure
from seqbench.datasets.labelled import Labelled
from seqbench.datasets.wav_archive import decimated, samples, wav_files
from seqbench.errors import DataError
from seqbench.tasks.classification import Classification, Pool
from seqbench.tasks.task import Split

RECORDED = 8000
NAME = re.compile(r"(\d)_(\w+)_(\d+)\.wav")
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
        (archive,) = ensure("spoken_digits", data_dir).values()
        self.checksums |= find("spoken_digits").checksums
        parts, digits, speakers, numbers = [], [], [], []
        for name, data in wav_files(archive):
            named = NAME.fullmatch(name)
            if named is None:
                raise DataError(f"{archive}: expected DIGIT_SPEAKER_INDEX.wav, got {name}")
            digits.append(named[1])
            speakers.append(named[2])
            numbers.append(int(named[3]))
            signal = samples(data, RECORDED, name).astype(np.float64)
            parts.append(decimated(signal / 2**15, RECORDED // rate))
        recordings = Labelled(
            str(archive),
            ("amplitude",),
            np.concatenate(parts)[:, None],
            np.array([len(part) for part in parts], np.int64),
            tuple(digits),
        )
        if split == "official":
            held_out = {name: np.isin(numbers, list(own)) for name, own in OFFICIAL.items()}
        else:
            order = sorted(set(speakers))
            held_out = {name: np.array(speakers) == order[i] for name, i in HELD_OUT.items()}
            self.notes |= {f"{name}_speaker": order[i] for name, i in HELD_OUT.items()}
        rows: dict[Split, NDArray[np.int64]] = {
            "train": np.flatnonzero(~(held_out["valid"] | held_out["test"])),
            "valid": np.flatnonzero(held_out["valid"]),
            "test": np.flatnonzero(held_out["test"]),
        }
        self.set_data(recordings, rows)
