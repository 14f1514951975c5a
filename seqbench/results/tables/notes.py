"""Write the notes below a table: what its numbers are, and on what terms they compare."""

from collections.abc import Iterable, Sequence

from seqbench.results.cells import Cell
from seqbench.results.papers import PaperRow, protocols
from seqbench.results.statistics import FEWEST_SEEDS
from seqbench.results.tables.layout import CHOICES, task_text
from seqbench.results.tables.table import FACTOR
from seqbench.wording import count, counted, plain

# Models of a task have similar sizes if their numbers of parameters differ by at most this factor.
SIMILAR_SIZES = 1.1
# Maximum number of tasks that a note lists, those whose sizes differ most.
LISTED_TASKS = 3
TIED, OLDER = "‡", "†"
OLDER_CODE = "with older code: of model, task or trainer, which has changed since"
FACTOR_NOTE = (
    f"{FACTOR}: geometric mean and the factor of its 95% confidence interval, where the errors of a"
    " task span decades"
)
TIED_NOTE = (
    f"{TIED} these seeds cannot tell it from the best: the 95% interval of their mean difference "
    "over shared seeds (Student's t, paired) contains zero"
)


def explanations(cells: Sequence[Cell], usual_n: int | None) -> list[str]:
    """Return notes on means and intervals.

    Args:
        cells: the cells of the table.
        usual_n: number of seeds of the numbers that do not say theirs.
    """
    lines = []
    sizes = [cell.statistics.n for cell in cells if cell.statistics]
    if max(sizes, default=0) >= FEWEST_SEEDS:
        seeds = f"; n={usual_n} seeds where no n is given" if usual_n else ""
        lines.append(f"mean ± half of its 95% confidence interval over seeds (Student's t){seeds}")
    if any(cell.log for cell in cells):
        lines.append(FACTOR_NOTE)
    if min(sizes, default=FEWEST_SEEDS) < FEWEST_SEEDS:
        lines.append(f"fewer than {FEWEST_SEEDS} seeds give no interval")
    if any(cell.column.split == "test_mean" for cell in cells):
        lines.append("test_mean: mean of the last three results on test")
    return lines


def of_choices(cells: Iterable[Cell], paper_rows: Iterable[PaperRow]) -> list[str]:
    """Return a note on the budget and the protocol that all cells share, and on a paper's."""
    columns = [cell.column for cell in cells]
    shared = {name: {getattr(column, name) for column in columns} for name in CHOICES}
    here = {name: values.pop() for name, values in shared.items() if len(values) == 1}
    said = [f"{name} {plain(value)}" for name, value in here.items() if value]
    notes = [", ".join(said)] if said else []
    other = {row.protocol for row in paper_rows} & protocols() - {here.get("protocol")}
    if other and here.get("protocol"):
        notes.append(f"published scores: protocol {', '.join(sorted(other))}")
    return notes


def of_sizes(cells: Iterable[Cell]) -> list[str]:
    """Return a note on how similar the sizes of the models of each task are, if any compare."""
    sizes: dict[str, set[tuple[int, str]]] = {}
    for cell in cells:
        if cell.parameters:
            sizes.setdefault(task_text(cell.column), set()).add(
                (cell.parameters, plain(cell.model))
            )
    factors = {
        task: max(models)[0] / min(models)[0] for task, models in sizes.items() if len(models) > 1
    }
    apart = sorted((t for t in factors if factors[t] > SIMILAR_SIZES), key=lambda t: -factors[t])
    listed = [
        f"{task}: {' to '.join(f'{count(size)} ({model})' for size, model in ends)}"
        for task in apart[:LISTED_TASKS]
        for ends in [(min(sizes[task]), max(sizes[task]))]
    ]
    if (more := len(apart) - len(listed)) > 0:
        listed.append(f"and on {counted(more, 'more task')}")
    if len(apart) < len(factors):
        similar = f"models of similar size (parameters within {SIMILAR_SIZES - 1:.0%})"
        return [similar + (f", except on {'; '.join(listed)}" if listed else "")]
    return [f"models of different size, in parameters: {'; '.join(listed)}"] if listed else []


def of_older_code(older: int, runs: int) -> list[str]:
    """Return a note on the runs with older code, if there are any.

    Args:
        older: number of runs of the table with older code.
        runs: number of its runs.
    """
    if not older:
        return []
    return [f"{'all' if older == runs else OLDER} runs {OLDER_CODE}"]
