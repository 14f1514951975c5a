"""Load the Free Spoken Digit Dataset: recordings of ten digits by six speakers, at 8 kHz."""

import re
from dataclasses import dataclass

import numpy as np

from seqbench.datasets.download import ensure
from seqbench.datasets.labelled import Labelled
from seqbench.datasets.wav_archive import decimated, samples, wav_files
from seqbench.errors import DataError
from seqbench.wording import plain

RECORDED = 8000
NAME = re.compile(r"(\d)_(\w+)_(\d+)\.wav")


@dataclass(frozen=True, eq=False)
class SpokenDigits:
    """The recordings, sorted by digit and speaker.

    Attributes:
        recordings: amplitudes from -1 to 1; the classes are the digits.
        speakers: the name of each recording's speaker.
        numbers: each recording's number of its digit and speaker, from 0.
    """

    recordings: Labelled
    speakers: tuple[str, ...]
    numbers: tuple[int, ...]


def load_spoken_digits(rate: int, data_dir: str | None = None) -> SpokenDigits:
    """Read the recordings; download them on first use.

    Args:
        rate: samples per second, a divisor of 8000. Below, recordings are low-pass filtered and
            thinned.
        data_dir: the cache folder, see `download.data_folder`.

    Raises:
        DataError: if the archive cannot be downloaded or a recording is malformed.
        RunError: if the cache is not writable.
    """
    (archive,) = ensure("spoken_digits", data_dir).values()
    parts, digits, speakers, numbers = [], [], [], []
    for name, data in wav_files(archive):
        named = NAME.fullmatch(name)
        if named is None:
            raise DataError(f"{archive}: expected DIGIT_SPEAKER_INDEX.wav, got {plain(name)}")
        digits.append(named[1])
        speakers.append(named[2])
        numbers.append(int(named[3]))
        signal = samples(data, RECORDED, name).astype(np.float64)
        parts.append(decimated(signal / 2**15, RECORDED // rate))
    lengths = np.array([len(part) for part in parts], np.int64)
    values = np.concatenate(parts)[:, None]
    recordings = Labelled(str(archive), ("amplitude",), values, lengths, tuple(digits))
    return SpokenDigits(recordings, tuple(speakers), tuple(numbers))
