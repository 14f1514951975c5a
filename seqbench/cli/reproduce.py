"""`seqbench reproduce`: train the runs of a paper's table; print published and measured scores."""

from typing import Annotated

import typer

from seqbench.cli.sweep import (
    DryRun,
    FailFast,
    MaxTime,
    Retry,
    Wait,
    report_missing,
    seconds,
    show_plan,
    watched,
)
from seqbench.wording import counted

EXAMPLES = """
\b
seqbench reproduce tcn2018 --dry-run                  the missing runs
seqbench reproduce tcn2018 --only 'task=adding, model=tcn' --protocol paper
seqbench reproduce tcn2018 --budget smoke --seeds 2   does it all run?
seqbench reproduce tcn2018 launch=slurm launch.partition=gpu --no-wait

\b
Protocols (configs/protocol/):
  ours    validation chooses the weights, the test split is read once
  paper   printed settings; the mean of the last three epochs' test scores
  code    what released code does, quirks included; of some models only

Run again, it trains what is missing and nothing twice. Runs in outputs/reference count, too.
"""


def reproduce(
    paper: Annotated[str, typer.Argument(help="As `seqbench list papers` names it: tcn2018.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...", help="Where to run: launch=slurm, device=cpu, output_dir=..."
        ),
    ] = None,
    only: Annotated[
        str | None, typer.Option(help="A part of the table: 'task=adding, model=tcn|gru'.")
    ] = None,
    budget: Annotated[str, typer.Option(help="full as the paper; quick or smoke.")] = "full",
    protocol: Annotated[str, typer.Option(help="ours, paper or code.")] = "ours",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each cell: seeds 0, 1, ...")] = 5,
    retry: Retry = False,
    dry_run: DryRun = False,
    fail_fast: FailFast = False,
    max_time: MaxTime = None,
    wait: Wait = True,
) -> None:
    """Train a paper's missing runs; compare with published scores."""
    from rich.console import Console

    from seqbench.cli.sweep_view import Terminal
    from seqbench.cli.table_view import show_table
    from seqbench.config.choices import choices_of
    from seqbench.config.compose import Composer
    from seqbench.config.multirun import multirun
    from seqbench.launch.reproduce import Reproduction, check_place, measurable
    from seqbench.launch.sweep import Policy, Sweep, View
    from seqbench.results.tables.reproduction import build_reproduction
    from seqbench.results.targets import no_verdict, without_a_row

    words = overrides or []
    check_place(words)
    cells, left_out = measurable(paper, only, {"budget": budget, "protocol": protocol})
    if only and (unknown := without_a_row(paper, choices_of("model"), only)):
        typer.echo(f"warning: --only: no row has {' or '.join(unknown)}", err=True)
    if left_out:
        number = counted(left_out, "cell")
        typer.echo(f"{number} left out: no released code that can be repeated", err=True)
    settings = [f"budget={budget}", f"protocol={protocol}"]
    policy = Policy(retry, False, fail_fast, seconds(max_time), dry_run, wait)
    view = Terminal()
    composer = Composer()
    command = [*settings, f"seed=range({seeds})", *words]
    sweep = Sweep(command, composer, policy, View() if dry_run else view)
    plan = Reproduction(sweep, cells, settings, seeds)
    with watched(view):
        multirun(composer, words, plan)
    if dry_run:
        if plan.kept:
            typer.echo(f"{len(plan.kept)} kept in a folder 'reference', not listed", err=True)
        if reason := no_verdict(paper, cells):
            typer.echo(reason, err=True)
        show_plan(sweep)
        return
    table = build_reproduction(paper, plan.records(), seeds)
    show_table(table, Console(highlight=False))
    report_missing(sweep)


reproduce.__doc__ = f"{reproduce.__doc__}\n{EXAMPLES}"
