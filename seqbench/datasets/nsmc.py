"""Load 25,000 Korean film reviews of NSMC, each positive (1) or negative (0)."""

import numpy as np
from numpy.typing import NDArray

from seqbench.datasets.download import ensure
from seqbench.datasets.labelled_texts import LabelledTexts

# Rows of the file, from 0, in each split. The file is sorted by neither id nor label.
SPLITS = {"train": (0, 17_500), "valid": (17_500, 20_000), "test": (20_000, 25_000)}


def load_nsmc(data_dir: str | None = None) -> tuple[LabelledTexts, dict[str, NDArray[np.int64]]]:
    """Read the reviews; download them on first use. Two rows without text are left out.

    Args:
        data_dir: the cache folder, see `download.data_folder`.

    Returns:
        The reviews, and the places of those of each split.

    Raises:
        DataError: if the file cannot be downloaded.
        RunError: if the cache is not writable.
    """
    (path,) = ensure("nsmc", data_dir).values()
    # Not a CSV reader: quotes are part of the reviews.
    lines = path.read_text(encoding="utf-8").split("\n")[1:-1]
    rows = [line.split("\t") for line in lines]
    numbers = np.array([i for i, (_, text, _) in enumerate(rows) if text])
    texts = tuple(rows[i][1] for i in numbers)
    labels = tuple(rows[i][2] for i in numbers)
    splits = {
        split: np.flatnonzero((first <= numbers) & (numbers < end))
        for split, (first, end) in SPLITS.items()
    }
    return LabelledTexts(str(path), texts, labels), splits
