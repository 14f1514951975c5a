"""Define a table of numbers that is independent of the output format.

A `Table` has rounded numbers with units and numbered notes, but no markup.
"""

from dataclasses import dataclass

# Notes are numbered in the order of their first mention.
SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
# Between a geometric mean and the factor of its interval.
FACTOR = "\N{MULTIPLICATION SIGN}÷"


@dataclass(frozen=True)
class Header:
    """The two header lines of a column: `adding T=200` over `MSE ↓`.

    Attributes:
        task: the task with its length; in an extra column its quantity: `published`, `median`.
        measure: metric and direction, budget and protocol if they differ; in an extra column the
            paper or the task.
        beside: True for an extra column, which belongs to the last column before it that is not
            one.
        name: name of the task; empty if the tasks are in the rows.
    """

    task: str
    measure: str
    beside: bool = False
    name: str = ""

    def __str__(self) -> str:
        return " · ".join(filter(None, (self.task, self.measure)))


@dataclass(frozen=True)
class Entry:
    """A measured or published number in a table.

    Attributes:
        value: the mean, rounded; `-` if no run has a score.
        spread: half width of the 95% confidence interval, in the same unit; a factor if `log`;
            empty below three seeds.
        n: number of runs in the mean.
        best: True for the best mean on this task; see `standings`.
        flags: warnings about these runs: `n=1`, `1 diverged`.
        marks: symbols that refer to the notes below the table.
        log: True for a geometric mean.
    """

    value: str
    spread: str = ""
    n: int = 0
    best: bool = False
    flags: tuple[str, ...] = ()
    marks: str = ""
    log: bool = False

    @property
    def number(self) -> str:
        """Return the mean with its confidence interval."""
        sign = FACTOR if self.log else "±"
        return f"{self.value} {sign} {self.spread}" if self.spread else self.value


@dataclass(frozen=True)
class Row:
    """A row of a model, or of a bound (see `Cell.bounds`) below all models.

    Attributes:
        label: name of the model or bound.
        entries: one for each column; `None` for an empty place.
        bound: True for a bound.
    """

    label: str
    entries: tuple[Entry | None, ...]
    bound: bool = False


@dataclass(frozen=True)
class Table:
    """A comparison of models, ready to be rendered; `stub` is the header of the row labels."""

    title: str
    columns: tuple[Header, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    stub: str = "model"

    def notes_with(self, best: str) -> tuple[str, ...]:
        """Return the notes; the first one explains `best`, the look of the best means, if any."""
        if not any(entry and entry.best for row in self.rows for entry in row.entries):
            return self.notes
        return (f"{best}: best mean on its task, of several runs and equal training", *self.notes)


def superscript(number: int) -> str:
    """Return a number in superscript digits."""
    return str(number).translate(SUPERSCRIPTS)
