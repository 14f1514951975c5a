"""`seqbench reproduce`: train the runs of a paper's table; print published and measured scores."""

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
    from seqbench.results.papers import Target
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
    """Train a paper's missing runs; compare with published scores."""
    from rich.console import Console

    from seqbench.cli.sweep_view import Terminal
    from seqbench.cli.table_view import show_table
    from seqbench.config.compose import Composer
    from seqbench.launch.sweep import Policy, Sweep, View
    from seqbench.results.tables.reproduction import build_reproduction
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
    """Refuse overrides that could change results: paper and protocol define what is trained.

    Raises:
        ConfigError: if a word does not just set the launcher or where and how a run executes.
    """
    from seqbench.errors import ConfigError
    from seqbench.runs.identity import OUTSIDE

    for word in words:
        group, _, name = word.partition("=")[0].lstrip("+").partition(".")
        places = {"launch", "hydra/launcher", *OUTSIDE[""]} - {"recipe"}
        if group not in places and name not in OUTSIDE.get(group, ()):
            raise ConfigError(f"paper and protocol say what is trained: leave out '{word}'")


def wanted(paper: str, only: str | None, budget: str, protocol: str) -> "list[Target]":
    """Return the cells of a paper's table that a protocol can measure.

    Raises:
        ConfigError: if a name does not exist, or no cell is left.
    """
    from seqbench.config.choices import choices_of
    from seqbench.config.schema import near_miss
    from seqbench.errors import ConfigError
    from seqbench.results.papers import targets

    for group, name in (("budget", budget), ("protocol", protocol)):
        if name not in (known := choices_of(group)):
            raise ConfigError(f"no {group} named '{name}'{near_miss(name, known)}")
    found = targets(paper, choices_of("model"), only)
    if protocol != "code":
        return found
    # Released code exists for the pairs that have settings in configs/protocol_for/pair.
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
    """The missing runs of a paper's table as one sweep.

    Hydra passes a Plan to the launcher in place of a Sweep. Hydra itself makes one job, from the
    launch overrides; the Plan replaces it by one job for each target and seed.

    Attributes:
        sweep: runs the jobs.
        targets: the cells to measure.
        settings: overrides shared by all jobs.
        seeds: number of runs per target.
        jobs: target -> its jobs; filled by `launch`.
        kept: run_id -> record of a completed run in `output_dir/reference`.
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
        """Train the missing runs, cheapest first.

        Args:
            asked: the overrides of each job that Hydra made; there must be one.
            engine: makes the engine that runs jobs.

        Raises:
            ConfigError: if an override has several values.
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
        return [Ending("completed")]  # for Hydra's one job; unused

    @property
    def output_dir(self) -> Path:
        """Return the output folder of the runs; `launch` must have planned them."""
        return Path(next(iter(self.jobs.values()))[0].config["output_dir"])

    def cheapest_first(self, records: "Iterable[Record]") -> "list[Job]":
        """Return the jobs that are not in `kept`, sorted by estimated training time.

        The estimate comes from similar records if there are any, else from the number of
        floating-point operations, at the median rate of the jobs that have similar records.
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
        """Return target -> the records of its runs so far."""
        from seqbench.results.collect import collect

        found = {r.run_id: r for r in collect([self.output_dir / "runs"]).records} | self.kept
        return {
            target: [found[job.run.run_id] for job in jobs if job.run.run_id in found]
            for target, jobs in self.jobs.items()
        }


def operations(job: "Job", target: "Target") -> float:
    """Estimate the FLOPs of a training run: 6 per parameter and time step."""
    trainer, row = job.config["trainer"], target.row
    if trainer["epochs"] is not None:
        steps = trainer["epochs"] * (row.tokens or 1)
    else:
        length = job.config["task"].get("length", row.length or 1)
        steps = trainer["steps"] * trainer["batch_size"] * length
    return 6.0 * (row.size or 1) * steps
