"""`seqbench compress`: make the model of a run smaller, and measure what that costs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from seqbench.cli import completion
from seqbench.cli.eval import Trust
from seqbench.cli.folders import RUN_HELP, OutputDir
from seqbench.cli.sweep import RESUME, Force, Retry

if TYPE_CHECKING:
    from seqbench.config import Config
    from seqbench.runs.record import Record

EXAMPLES = """
\b
seqbench compress 3f1b --prune weights=0.5,0.8,0.9
seqbench compress 3f1b --prune units=0.25 --finetune 500 optimizer.lr=1e-4
seqbench compress 3f1b --quantize fp16,int8-weights
seqbench compress 3f1b --prune weights=0.8 --quantize int8-weights --dry-run

Each combination of pruning fraction and weight format is a separate run with the parent RUN:
`eval`, `predict`, `export`, `show` and `train --resume` take it like any other. Runs that have
ended are shown, not trained again.
"""


def compress(
    run: Annotated[str, typer.Argument(help=RUN_HELP, autocompletion=completion.runs)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Settings of the fine-tuning: optimizer.lr=1e-4; and where the data are now.",
        ),
    ] = None,
    prune: Annotated[
        list[str] | None,
        typer.Option(
            metavar="weights|units=SHARE,...",
            help="Set the smallest weights to 0, or remove whole units: channels, hidden units, "
            "heads.",
        ),
    ] = None,
    scope: Annotated[
        Literal["global", "layer"] | None,
        typer.Option(help="Prune the share of all weights together (default), or of each matrix."),
    ] = None,
    quantize: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND,...", help="Store the weights as fp16, bf16, int8-weights or fp32."
        ),
    ] = None,
    finetune: Annotated[
        int, typer.Option(metavar="STEPS", help="Train for this many steps after pruning.")
    ] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the runs, and train none.")
    ] = False,
    force: Force = False,
    retry: Retry = False,
    trust: Trust = None,
    output_dir: OutputDir = Path("outputs"),
) -> None:
    """Prune or quantize a completed run.

    Prints score, file size and latency beside those of the run.
    """
    from seqbench.errors import RunError
    from seqbench.launch.compressing import compressed_configs
    from seqbench.runs.run import Run

    configs = compressed_configs(
        run,
        prune or [],
        scope,
        quantize or [],
        finetune,
        overrides or [],
        output_dir,
        trust or (),
    )
    if dry_run:
        for config in configs:
            show_plan(config)
        return

    from seqbench.cli.progress import Brief, Terminal
    from seqbench.experiment import run as train

    records = []
    for config in configs:
        if not finetune:
            records.append(train(config, Brief(), force=force, retry=retry))
            continue
        terminal = Terminal(config, ())
        with terminal.closed_at_the_end():
            records.append(train(config, terminal, force=force, retry=retry))
    parent = Run.of_weights(Path(configs[0]["init_from"])).record
    show_results([*([] if parent is None else [parent]), *records])
    lost = [record for record in records if record.status != "completed"]
    if lost:
        count = f"{len(lost)} of {len(records)} runs"
        raise RunError(f"{count} did not complete: {lost[0].error}; {RESUME}")


compress.__doc__ = f"{compress.__doc__}\n{EXAMPLES}"


def show_plan(config: "Config") -> None:
    """Print the method, the id and the state of a run."""
    from seqbench.config.compression import method
    from seqbench.runs.run import Run

    folder = Run.of(config)
    record = folder.record
    state = record.status if record else "to resume" if folder.folder.exists() else "to run"
    typer.echo(f"{state:10}  {folder.run_id[:8]}  {method(config)}")


def show_results(records: list["Record"]) -> None:
    """Print the table of a parent and its compressed runs."""
    from rich.console import Console

    from seqbench.cli.table_view import show_table
    from seqbench.results.compression import lines_of
    from seqbench.results.tables.methods import method_table

    show_table(method_table(lines_of(records)), Console(highlight=False))
