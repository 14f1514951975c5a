"""`seqbench compare`: what two runs have not in common."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seqbench.cli.show import metrics, settings, whole
from seqbench.runs.record import Record
from seqbench.wording import plain

if TYPE_CHECKING:
    from seqbench.results.collect import Unfinished


def compare(
    first: Annotated[
        str, typer.Argument(metavar="RUN", help="A run id, the beginning of one, or a path.")
    ],
    second: Annotated[str, typer.Argument(metavar="RUN", help="Another one.")],
    output_dir: Annotated[Path, typer.Option(help="Where runs are.")] = Path("outputs"),
) -> None:
    """Compare two runs: the settings that differ, and their metrics side by side.

    Example: seqbench compare 3f1b 88a0
    """
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from seqbench.results.collect import find_run, read_unfinished
    from seqbench.runs.record import read_record

    folders = [find_run(run, output_dir) for run in (first, second)]
    found: list[Record | Unfinished] = [
        read_record(folder / "record.json")
        if (folder / "record.json").exists()
        else read_unfinished(folder)
        for folder in folders
    ]
    console = Console(highlight=False)
    table = Table(box=SIMPLE, show_edge=False, pad_edge=False)
    table.add_column("")
    for run in found:
        table.add_column(Text(plain(run.run_id)), overflow="fold")
    for name, pair in differences(*map(facts, found)).items():
        table.add_row(Text(plain(name), "dim"), *(Text(plain(value)) for value in pair))
    table.add_section()
    measured = [metrics(run) if isinstance(run, Record) else {} for run in found]
    for name in dict.fromkeys([*measured[0], *measured[1]]):
        table.add_row(
            Text(plain(name), "dim"), *(Text(values.get(name, "-"), "bold") for values in measured)
        )
    console.print(table)


def differences(first: dict[str, str], second: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Names under which two runs say different things; `-` where one says nothing."""
    names = dict.fromkeys([*first, *second])
    pairs = {name: (first.get(name, "-"), second.get(name, "-")) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def facts(run: "Record | Unfinished") -> dict[str, str]:
    """What two runs may differ in, but for where and when they ran."""
    settled = {"status": run.status, "task": run.task, "model": run.model} | settings(run.config)
    if isinstance(run, Record):
        settled |= {"parameters": whole(run.parameters), "steps taken": whole(run.steps)}
        settled |= {f"{name} version": version for name, version in run.versions.items()}
        settled |= {f"data {name}": digest[:12] for name, digest in run.data.items()}
        settled |= {"source": run.source}
    return settled
