"""Print the confusion matrix of a run's test."""

from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from seqbench.wording import amount, count, score

if TYPE_CHECKING:
    from rich.console import Console

    from seqbench.runs.confusion import ConfusionMatrix

# Mistakes to list if the matrix is wider than the terminal.
MOST_MISTAKES = 10


def print_confusion(console: "Console", matrix: "ConfusionMatrix") -> None:
    """Print the counts, or the most frequent mistakes if they are too wide, and their scores."""
    size = len(str(max(map(max, matrix.counts))))
    names = [cell_len(name) for name in matrix.names]
    wide = sum(max(size, name) + 2 for name in names)
    fits = max(len("true"), *names) + wide + len("  recall") <= console.width
    title = "rows are true classes, columns predictions" if fits else "the most frequent mistakes"
    console.print(Text(f"\nconfusion matrix of the test: {title}", style="bold"))
    console.print(grid(matrix) if fits else mistakes(matrix))
    scores = [score("balanced_accuracy", matrix.balanced_accuracy)]
    scores += [score("macro_f1", matrix.macro_f1)]
    console.print(Text(", ".join(scores)))


def grid(matrix: "ConfusionMatrix") -> Table:
    """Return a table with the true classes as rows and the predicted classes as columns."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("true", style="dim", justify="right")
    for name in matrix.names:
        table.add_column(Text(name), justify="right", no_wrap=True)
    table.add_column("recall", style="dim", justify="right")
    rows = zip(matrix.names, matrix.counts, matrix.recalls, strict=True)
    for true, (name, row, recall) in enumerate(rows):
        cells = [
            Text(str(n) if n else "·", style="bold" if i == true else "" if n else "dim")
            for i, n in enumerate(row)
        ]
        shown = "-" if recall is None else amount("accuracy", recall)
        table.add_row(Text(name), *cells, shown)
    return table


def mistakes(matrix: "ConfusionMatrix") -> Table:
    """Return a table of the most frequent mistakes."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("true", "predicted", "examples"):
        table.add_column(name, justify="right", no_wrap=True)
    for true, predicted, examples in matrix.mistakes(MOST_MISTAKES):
        names = (Text(matrix.names[i]) for i in (true, predicted))
        table.add_row(*names, count(examples))
    return table
