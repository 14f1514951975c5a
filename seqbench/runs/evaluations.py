"""Keep the scores of a run's best weights on other data, beside the run's own test score.

`evaluations.jsonl` in the run folder has one JSON object per line. A run does not need it; its
record does not refer to it.
"""

from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from seqbench.runs import foreign
from seqbench.runs.atomic import append_line
from seqbench.runs.events import json_object
from seqbench.runs.record import RecordError, instance_of, strict

# Most bytes that are read: about fifty thousand evaluations.
LARGEST = 2**26


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The scores of a run's best weights on other data than its own.

    Attributes:
        overrides: the values of the task that differ from the run's, by key; or `input`, a file.
        split: `valid` or `test`.
        step: the training step of the weights; `None` if unknown.
        metric: name of the metric that ranks models on the task.
        metrics: name -> value, accuracies as fractions.
        baseline: score of a predictor without memory, or of the best naive forecast, on this data.
        optimum: the best possible score on this data; `None` if unknown.
        data: name -> SHA-256 of the data.
        notes: facts of the task, such as the number of unknown tokens.
        source: hash of the sources of seqbench that computed the scores.
        date: ISO 8601 in UTC.
        naive: name -> score of each naive forecast on this data.
    """

    overrides: dict[str, Any]
    split: str
    step: int | None
    metric: str
    metrics: dict[str, float | None]
    baseline: float | None
    optimum: float | None
    data: dict[str, str]
    notes: dict[str, Any]
    source: str
    date: str
    naive: dict[str, float | None] = field(default_factory=dict)

    @property
    def unknown(self) -> int:
        """The number of tokens of the split that are not in the run's vocabulary."""
        count = self.notes.get(f"unknown_{self.split}")
        return count if isinstance(count, int) else 0

    @property
    def unit(self) -> str:
        """The name of the tokens of a text, in the plural."""
        return str(self.notes.get("unit", "characters"))


_EVALUATION = instance_of(Evaluation)


def append_evaluation(path: Path, evaluation: Evaluation) -> None:
    """Append an evaluation, unless the file has the same one of another date.

    Raises:
        OSError: if the file cannot be written, or is a link.
    """
    if all(replace(known, date=evaluation.date) != evaluation for known in read_evaluations(path)):
        found = {f.name: strict(getattr(evaluation, f.name)) for f in fields(evaluation)}
        append_line(path, found)


def read_evaluations(path: Path) -> list[Evaluation]:
    """Return the evaluations of a run in the order of their dates; invalid lines are skipped.

    The file may come from an untrusted source.
    """
    try:
        content = b"" if path.is_symlink() else foreign.read(path, LARGEST)
    except OSError:
        return []
    found = []
    for line in content.split(b"\n"):
        with suppress(RecordError):
            found.append(_EVALUATION(json_object(line), ""))
    return found
