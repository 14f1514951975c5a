"""Count predictions by true class, and derive scores from the counts. Nothing here needs torch.

`confusion.json` in a run folder holds the counts of the test.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seqbench.runs import atomic, foreign
from seqbench.wording import plain

# Most bytes that are read, and most classes that are shown: 1000 classes take two to ten million.
LARGEST = 2**24
MOST_CLASSES = 2000


@dataclass(frozen=True)
class ConfusionMatrix:
    """The number of examples of each true class by predicted class.

    Attributes:
        counts: `counts[true][predicted]`, square and not negative.
        classes: the name of each class; empty: they are numbered from 0.
    """

    counts: list[list[int]]
    classes: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The name or the number of each class."""
        return self.classes or list(map(str, range(len(self.counts))))

    @property
    def targets(self) -> list[int]:
        """The number of examples of each true class."""
        return [sum(row) for row in self.counts]

    @property
    def predictions(self) -> list[int]:
        """The number of examples that are predicted as each class."""
        return [sum(column) for column in zip(*self.counts, strict=True)]

    @property
    def accuracy(self) -> float:
        """The fraction of examples whose class is predicted; NaN without examples."""
        return _mean([float(row[i]) for i, row in enumerate(self.counts)], sum(self.targets))

    @property
    def recalls(self) -> list[float | None]:
        """The fraction of each class that is predicted as such; `None` for one without examples."""
        return [
            self.counts[i][i] / total if total else None for i, total in enumerate(self.targets)
        ]

    @property
    def balanced_accuracy(self) -> float:
        """The mean recall of the classes that have examples; NaN without any."""
        return _mean([recall for recall in self.recalls if recall is not None])

    @property
    def macro_f1(self) -> float:
        """The mean F1 of the classes that have examples or are predicted; NaN without any.

        F1 is the harmonic mean of precision and recall, `2 TP / (targets + predictions)`; it is 0
        for a class that has no example or is never predicted.
        """
        sizes = [sum(pair) for pair in zip(self.targets, self.predictions, strict=True)]
        return _mean([2 * self.counts[i][i] / size for i, size in enumerate(sizes) if size])

    def mistakes(self, most: int) -> list[tuple[int, int, int]]:
        """Return the most frequent mistakes as (true class, predicted class, count)."""
        found = [
            (true, predicted, count)
            for true, row in enumerate(self.counts)
            for predicted, count in enumerate(row)
            if count and true != predicted
        ]
        return sorted(found, key=lambda mistake: -mistake[2])[:most]


def _mean(values: list[float], size: int | None = None) -> float:
    size = len(values) if size is None else size
    return sum(values) / size if size else float("nan")


def write_confusion(path: Path, matrix: ConfusionMatrix) -> None:
    """Write a confusion matrix atomically, one line per true class.

    Raises:
        OSError: if the file cannot be written.
    """
    rows = ",\n".join(json.dumps(row, separators=(",", ":")) for row in matrix.counts)
    text = f"[{rows}]\n"
    if matrix.classes:
        text = f'{{"classes": {json.dumps(matrix.classes)},\n"counts": {text}}}\n'
    atomic.write(path, text.encode())


def read_confusion(path: Path) -> ConfusionMatrix | None:
    """Return the confusion matrix in a file that may come from an untrusted source.

    `None` if there is no such file, or it holds something else.
    """
    try:
        if path.is_symlink():  # to a file that a report must not show
            return None
        counts: Any = json.loads(foreign.read(path, LARGEST))
    except (OSError, ValueError, RecursionError):
        return None
    classes: list[str] = []
    if isinstance(counts, dict):
        names, counts = counts.get("classes"), counts.get("counts")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            return None
        classes = list(map(plain, names))
    if not isinstance(counts, list) or not 0 < len(counts) <= MOST_CLASSES:
        return None
    if classes and len(classes) != len(counts):
        return None
    for row in counts:
        if not isinstance(row, list) or len(row) != len(counts):
            return None
        if not all(type(n) is int and 0 <= n < 2**63 for n in row):
            return None
    return ConfusionMatrix(counts, classes)
