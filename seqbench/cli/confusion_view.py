"""Print the confusion matrix of a run's test."""

from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from seqbench.cli.rich_tables import columns_table
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
    header = ["true", *matrix.names, "recall"]
    rows = []
    of_classes = zip(matrix.names, matrix.counts, matrix.recalls, strict=True)
    for true, (name, counts, recall) in enumerate(of_classes):
        cells = [
            Text(str(n) if n else "·", style="bold" if i == true else "" if n else "dim")
            for i, n in enumerate(counts)
        ]
        shown = "-" if recall is None else amount("accuracy", recall)
        rows.append([Text(name, "dim"), *cells, Text(shown, "dim")])
    return columns_table(header, rows, header)


def mistakes(matrix: "ConfusionMatrix") -> Table:
    """Return a table of the most frequent mistakes."""
    rows = [
        (matrix.names[true], matrix.names[predicted], count(examples))
        for true, predicted, examples in matrix.mistakes(MOST_MISTAKES)
    ]
    return columns_table(("true", "predicted", "examples"), rows, ("examples",))
