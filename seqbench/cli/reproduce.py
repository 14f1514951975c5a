"""`seqbench reproduce`: measure what a paper published, and print both."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer

from seqbench.cli.sweep import (
    DryRun,
    FailFast,
    MaxTime,
    Retry,
    Wait,
    complain,
    seconds,
    show_plan,
    watched,
)

if TYPE_CHECKING:
    from seqbench.launch.engine import Engine
    from seqbench.launch.job import Ending, Job
    from seqbench.launch.sweep import Sweep
    from seqbench.results.reproduction import Target
    from seqbench.runs.record import Record

EXAMPLES = """
\b
seqbench reproduce tcn2018 --dry-run                    what is missing, cheapest first
seqbench reproduce tcn2018 --only 'task=adding|copy, model=tcn' --protocol paper
seqbench reproduce tcn2018 --budget smoke --seeds 2     does it all run?
seqbench reproduce tcn2018 launch=slurm launch.partition=gpu --no-wait

\b
Protocols (configs/protocol/):
  ours    validation chooses the weights, the test split is read once
  paper   the settings in print; the mean of the last three epochs' test results
  code    what the released code does, quirks included; TCN only

Given again it trains what is missing, and nothing twice. Runs that are kept in outputs/reference
count, too.
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
    """Train what is missing of a paper's table, and print published beside measured."""
    from rich.console import Console

    from seqbench.cli.sweep_view import Terminal
    from seqbench.cli.table_view import show_table
    from seqbench.configuration import Composer
    from seqbench.launch.sweep import Policy, Sweep, View
    from seqbench.results.reproduction import build_reproduction
    from seqbench.runs.code_hash import source_hash

    words = overrides or []
    check_place(words)
    asked = wanted(paper, only, budget, protocol)
    command = [f"budget={budget}", f"protocol={protocol}", f"seed=range({seeds})", *words]
    policy = Policy(retry, False, fail_fast, seconds(max_time), dry_run, wait)
    view = Terminal()
    with Composer() as composer:
        sweep = Sweep(command, composer, policy, View() if dry_run else view)
        plan = Plan(sweep, asked, [f"budget={budget}", f"protocol={protocol}"], seeds)
        with watched(view):
            composer.multirun(words, plan)
    if dry_run:
        if plan.kept:
            typer.echo(f"{len(plan.kept)} kept in a folder 'reference', not listed", err=True)
        show_plan(sweep)
        return
    table = build_reproduction(paper, plan.records(), seeds, source_hash())
    show_table(table, Console(highlight=False))
    complain(sweep)


reproduce.__doc__ = f"{reproduce.__doc__}\n{EXAMPLES}"


def check_place(words: Iterable[str]) -> None:
    """Refuse what would change a result: the paper and the protocol say what is trained.

    Raises:
        ConfigError: a word does more than say where, or how to launch.
    """
    from seqbench.errors import ConfigError
    from seqbench.runs.identity import OUTSIDE

    for word in words:
        group, _, name = word.partition("=")[0].lstrip("+").partition(".")
        places = {"launch", "hydra/launcher", *OUTSIDE[""]} - {"recipe"}
        if group not in places and name not in OUTSIDE.get(group, ()):
            raise ConfigError(f"paper and protocol say what is trained: leave out '{word}'")


def wanted(paper: str, only: str | None, budget: str, protocol: str) -> "list[Target]":
    """The cells of a paper that can be measured by a protocol.

    Raises:
        ConfigError: something is named that does not exist, or there is no such cell.
    """
    from seqbench.choices import choices_of
    from seqbench.errors import ConfigError
    from seqbench.results.reproduction import targets
    from seqbench.signatures import near_miss

    for group, name in (("budget", budget), ("protocol", protocol)):
        if name not in (known := choices_of(group)):
            raise ConfigError(f"no {group} named '{name}'{near_miss(name, known)}")
    found = targets(paper, choices_of("model"), only)
    if protocol != "code":
        return found
    # Which pairs there is code for, the settings say.
    pairs = choices_of("protocol_for/pair")
    released = [t for t in found if f"{t.row.task}_{t.model}_{protocol}" in pairs]
    if left := len(found) - len(released):
        cells = "1 cell" if left == 1 else f"{left} cells"
        typer.echo(f"{cells} left out: no released code that can be repeated", err=True)
    if not released:
        raise ConfigError("--protocol code leaves nothing to measure")
    return released


@dataclass
class Plan:
    """The missing cells of a table as one sweep.

    Hydra hands it to the launcher in place of a sweep: of the one job that Hydra makes of where to
    run, it makes those of the cells.

    Attributes:
        sweep: does the jobs.
        targets: what is to be measured.
        settings: overrides that all jobs share.
        seeds: runs of each target.
        jobs: of each target, once they are planned.
        kept: run_id -> a completed run that stands in `output_dir/reference`.
    """

    sweep: "Sweep"
    targets: "Sequence[Target]"
    settings: Sequence[str]
    seeds: int
    jobs: "dict[Target, list[Job]]" = field(default_factory=dict)
    kept: "dict[str, Record]" = field(default_factory=dict)

    def launch(
        self, asked: Sequence[Sequence[str]], engine: "Callable[[], Engine]"
    ) -> "list[Ending]":
        """Have the missing runs done, cheapest first.

        Raises:
            ConfigError: several places are named.
        """
        from seqbench.errors import ConfigError
        from seqbench.launch.job import Ending
        from seqbench.results.collect import collect

        if len(asked) > 1:
            raise ConfigError("reproduce takes one value of each key")
        for target in self.targets:
            names = [f"task={target.row.task}", f"model={target.model}"]
            self.jobs[target] = [
                self.sweep.job([*names, *self.settings, f"seed={seed}", *asked[0]])
                for seed in range(self.seeds)
            ]
        runs = {job.run.run_id for jobs in self.jobs.values() for job in jobs}
        output = self.output_dir
        kept = [r for r in collect([output / "reference"]).records if r.status == "completed"]
        self.kept = {record.run_id: record for record in kept if record.run_id in runs}
        due = self.cheapest_first([*collect([output / "runs"]).records, *kept])
        self.sweep.launch([job.words for job in due], engine)
        return [Ending("completed")]  # of Hydra's job, which nobody looks at

    @property
    def output_dir(self) -> Path:
        """Where the runs go."""
        return Path(next(iter(self.jobs.values()))[0].config["output_dir"])

    def cheapest_first(self, records: "Iterable[Record]") -> "list[Job]":
        """The jobs that are not kept already, by how long they will take.

        That is told from runs like them, where there are some, and else from their arithmetic.
        """
        from seqbench.launch.cost import Costs

        costs = Costs(records)
        due = [
            (job, costs.of(job), operations(job, target))
            for target, jobs in self.jobs.items()
            for job in jobs
            if job.run.run_id not in self.kept
        ]
        speeds = [work / cost for _, cost, work in due if cost]
        speed = median(speeds) if speeds else 1.0
        due.sort(key=lambda item: item[2] / speed if item[1] is None else item[1])
        return [job for job, _, _ in due]

    def records(self) -> "dict[Target, list[Record]]":
        """What was measured of each target so far."""
        from seqbench.results.collect import collect

        found = {r.run_id: r for r in collect([self.output_dir / "runs"]).records} | self.kept
        return {
            target: [found[job.run.run_id] for job in jobs if job.run.run_id in found]
            for target, jobs in self.jobs.items()
        }


def operations(job: "Job", target: "Target") -> float:
    """A plain estimate of a training's arithmetic: six for each parameter and time step."""
    trainer, row = job.config["trainer"], target.row
    if trainer["epochs"] is not None:
        steps = trainer["epochs"] * (row.tokens or 1)
    else:
        length = job.config["task"].get("length", row.length or 1)
        steps = trainer["steps"] * trainer["batch_size"] * length
    return 6.0 * (row.size or 1) * steps
