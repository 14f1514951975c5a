"""`seqbench clean`: delete checkpoints and runs that are not needed any more."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seqbench.cli.folders import Folders, OutputDir, places_text, run_roots
from seqbench.errors import ConfigError, RunError, SeqbenchError
from seqbench.wording import plain

if TYPE_CHECKING:
    from rich.table import Table

    from seqbench.runs.cleaning import Waste
    from seqbench.runs.run import Run


def clean(
    paths: Folders = None,
    failed: Annotated[bool, typer.Option("--failed", help="Also delete runs that failed.")] = False,
    diverged: Annotated[
        bool, typer.Option("--diverged", help="Also delete runs that diverged.")
    ] = False,
    unfinished: Annotated[
        bool,
        typer.Option("--unfinished", help="Also delete runs that were interrupted or crashed."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List only; delete nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
    output_dir: OutputDir = Path("outputs"),
) -> None:
    """Delete checkpoints that completed runs do not need any more.

    A completed run keeps its best weights, record, events and log: eval, generate, show and table
    work as before. It can no longer be continued (train --resume RUN trainer.steps=N). With
    --failed, --diverged or --unfinished, such runs are deleted with all their files. Runs that a
    process holds are left as they are.

    Example: seqbench clean --dry-run
    """
    from rich.console import Console

    from seqbench.runs.cleaning import delete_waste

    if not (yes or dry_run or sys.stdin.isatty()):
        raise ConfigError(
            "expected a terminal to ask on: add --yes to delete, or --dry-run to list only"
        )
    chosen = {"failed": failed, "diverged": diverged, "unfinished": unfinished}
    statuses = [status for status, wanted in chosen.items() if wanted]
    found = list(waste_of(run_roots(paths, output_dir), statuses))
    if not found:
        typer.echo(f"nothing to delete in {places_text(paths, output_dir)}", err=True)
        return
    Console(highlight=False).print(table_of(found))
    if not all(waste.all_files for waste in found):
        typer.echo(
            "completed runs keep their best weights and records, but can no longer be continued "
            "(train --resume RUN trainer.steps=N)",
            err=True,
        )
    if dry_run:
        return
    if not yes and not typer.confirm(f"Delete {amount_of(found)}?", err=True):
        typer.echo("nothing was deleted", err=True)
        return
    deleted, failures = [], 0
    for waste in found:
        try:
            deleted += [gone] if (gone := delete_waste(waste.run, statuses)) else []
        except SeqbenchError as error:
            failures += 1
            typer.echo(f"left out: {plain(str(error))}", err=True)
    typer.echo(f"deleted {amount_of(deleted)}", err=True)
    if failures:
        raise RunError(f"{failures} of {len(found)} runs were not cleaned")


def waste_of(folders: list[Path], statuses: Sequence[str]) -> "list[Waste]":
    """Find the files that can be deleted in each run; print the runs that are skipped."""
    from seqbench.runs import lock
    from seqbench.runs.cleaning import find_waste
    from seqbench.runs.find import run_folders
    from seqbench.runs.run import Run

    found = []
    for folder in dict.fromkeys(run for path in folders for run in run_folders(path)):
        run = Run(folder)
        try:
            waste = find_waste(run, statuses)
            if waste is not None and lock.is_held(folder):
                holder = lock.holder(folder / ".lease")
                raise RunError(f"run {run.run_id} is being trained by {holder}")
        except (OSError, SeqbenchError) as error:
            typer.echo(f"left out: {plain(str(error))}", err=True)
            continue
        found += [waste] if waste else []
    return found


def table_of(found: "Sequence[Waste]") -> "Table":
    """Return a table with the files and bytes of each run, and their total."""
    from rich.text import Text

    from seqbench.cli.rich_tables import columns_table

    rows: list[list[str | Text]] = []
    for waste in found:
        task, model, run_id = waste.run.folder.parts[-3:] if named(waste.run) else ("", "", "")
        name = Text(plain(run_id or str(waste.run.folder)), "bold")
        deletes = "all files" if waste.all_files else "last checkpoints"
        sizes = f"{len(waste.files):,}", f"{waste.size:,}"
        rows.append([name, task, model, waste.status, deletes, *sizes])
    sizes = f"{sum(len(waste.files) for waste in found):,}", f"{sum(w.size for w in found):,}"
    rows.append([Text("total", "bold"), "", "", "", "", *sizes])
    header = ("run", "task", "model", "status", "deletes", "files", "bytes")
    return columns_table(header, rows, ("files", "bytes"))


def named(run: "Run") -> bool:
    """Return True if a run's folder is where runs are written, `<task>/<model>/<run id>`."""
    from seqbench.runs.identity import RUN_ID

    return bool(RUN_ID.fullmatch(run.folder.name)) and len(run.folder.parts) > 2


def amount_of(found: "Sequence[Waste]") -> str:
    """Return how much is deleted: `4 files, 1,234,567 bytes`."""
    files, size = sum(len(waste.files) for waste in found), sum(waste.size for waste in found)
    return f"{files:,} file{'s' * (files != 1)}, {size:,} bytes"
