"""`seqbench sweep`, which is `seqbench train -m`: many runs, each once."""

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seqbench.cli import completion
from seqbench.wording import duration

if TYPE_CHECKING:
    from seqbench.launch.sweep import Sweep

EXAMPLES = """
\b
seqbench sweep model=tcn,lstm,gru,llama task=adding,copy seed=0,1,2 budget=quick
seqbench sweep model=tcn 'seed=range(5)' optimizer.lr=1e-3,3e-3 --dry-run
seqbench sweep model=glob(*) task=adding launch.workers=4 --max-time 8h
seqbench sweep model=tcn seed=0,1,2 launch=slurm launch.partition=gpu

The same sweep, given again, does what is missing. Sweeps that overlap share the work.
"""

ConfigDir = Annotated[
    str | None, typer.Option(help="A folder with choices of your own (model/mine.yaml).")
]
Force = Annotated[bool, typer.Option("--force", help="Run again what is finished.")]
Retry = Annotated[bool, typer.Option("--retry", help="Run again what failed or diverged.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Of a sweep: list what there is to do, and what it costs.")
]
FailFast = Annotated[
    bool, typer.Option("--fail-fast", help="Of a sweep: stop at the first run that fails.")
]
MaxTime = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Of a sweep: stop after 90s, 30m or 8h, with checkpoints."),
]
Wait = Annotated[
    bool, typer.Option(help="Of a sweep: stay until a cluster has done it, or leave at once.")
]
# Failures that are listed at the end, each with a line.
MOST_SHOWN = 20
INTERRUPTIONS = ("interrupted", "its time is up")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def sweep(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE,VALUE]...",
            help="As Hydra takes them for a sweep.",
            autocompletion=completion.overrides,
        ),
    ] = None,
    config_dir: ConfigDir = None,
    force: Force = False,
    retry: Retry = False,
    dry_run: DryRun = False,
    fail_fast: FailFast = False,
    max_time: MaxTime = None,
    wait: Wait = True,
) -> None:
    """Train every combination of the values given, in parallel; go on where it was cut off."""
    from seqbench.cli.sweep_view import Terminal
    from seqbench.configuration import Composer
    from seqbench.launch.sweep import Policy, Sweep

    policy = Policy(retry, force, fail_fast, seconds(max_time), dry_run, wait)
    view = Terminal()
    with Composer(config_dir) as composer:
        asked = Sweep(overrides or [], composer, policy, view)
        try:
            composer.multirun(overrides or [], asked)
        finally:
            view.close()
    if dry_run:
        show_plan(asked)
        return
    show_results(asked)
    complain(asked)


sweep.__doc__ = f"{sweep.__doc__}\n{EXAMPLES}"


def show_plan(sweep: "Sweep") -> None:
    """List the jobs of a sweep: what is to be done of each, and what that costs."""
    from seqbench.cli.sweep_view import Names
    from seqbench.launch.cost import Costs
    from seqbench.results.collect import collect, last_step
    from seqbench.runs import lock

    folders = {Path(job.config["output_dir"]) / "runs" for job in sweep.jobs.values()}
    costs, names = Costs(collect(sorted(folders)).records), Names()
    names.learn(sweep.jobs.values())
    total, unknown, counts = 0.0, 0, Counter[str]()
    for folder, job in sweep.jobs.items():
        state: str
        ending, cost = sweep.endings.get(folder), ""
        if ending is not None:
            state = ending.how
        elif lock.is_held(folder):
            state = "elsewhere"
        else:
            resumed = job.state() == "resume"
            state = "to resume" if resumed else "to run"
            if (expected := costs.of(job)) is None:
                unknown += 1
                cost = "cost unknown"
            else:
                total += expected
                cost = f"about {duration(expected)}"
            if resumed:
                cost += f", from step {last_step(job.run.events_path) or 0} or before"
        counts[state] += 1
        typer.echo(f"{state:10}  {names.of(job)}  {cost}".rstrip())
    summary = ", ".join(f"{count} {state}" for state, count in counts.items())
    more = f", and {unknown} runs with no like on record" if unknown else ""
    typer.echo(f"{summary}: about {duration(total)} of training{more}", err=True)


def show_results(sweep: "Sweep") -> None:
    """Print the comparison of all that completed."""
    from rich.console import Console

    from seqbench.cli.table_view import show_table
    from seqbench.results.aggregate import aggregate
    from seqbench.results.tables import build_table
    from seqbench.runs.identity import source_hash

    over = [sweep.jobs[f] for f, e in sweep.endings.items() if e.how in ("completed", "diverged")]
    records = [record for job in over if (record := job.run.record) is not None]
    if records:
        show_table(build_table(aggregate(records), source_hash()), Console(highlight=False))


def complain(sweep: "Sweep") -> None:
    """Say what is missing, and how to get it.

    Raises:
        RunError: not all is there; its exit code says why.
    """
    from seqbench.cli.sweep_view import Names, told
    from seqbench.errors import RunError
    from seqbench.launch.sweep import FAILURES

    names = Names()
    names.learn(sweep.jobs.values())
    failed = {f: e for f, e in sweep.endings.items() if e.how in FAILURES}
    for folder, ending in list(failed.items())[:MOST_SHOWN]:
        job = sweep.jobs[folder]
        typer.echo(f"{names.of(job)}: {told(job, ending)}", err=True)
    if len(failed) > MOST_SHOWN:
        typer.echo(f"... and {len(failed) - MOST_SHOWN} more", err=True)
    missing = sum(sweep.endings[f].how != "completed" for f in sweep.endings)
    missing += len(sweep.jobs) - len(sweep.endings)
    if not missing:
        return
    if not sweep.policy.wait and not failed:
        typer.echo("left to the cluster: the same command says how far it is", err=True)
        return
    counts = f"{missing} of {len(sweep.jobs)} runs are missing"
    if failed:
        counts += f", {len(failed)} of them failed"
    why = f"{sweep.stopped}: " if sweep.stopped else ""
    error = RunError(f"{why}{counts}; the same command goes on")
    codes = {ending.code for ending in failed.values()}
    if sweep.stopped in INTERRUPTIONS:
        error.exit_code = 130
    elif len(failed) == missing and len(codes) == 1:
        error.exit_code = codes.pop()
    raise error


def seconds(text: str | None) -> float | None:
    """A time as people write it, `90s` or `1h30m`.

    Raises:
        ConfigError: it is none.
    """
    from seqbench.errors import ConfigError

    if text is None:
        return None
    if not re.fullmatch(r"(\d+(\.\d+)?[smhd])+", text):
        raise ConfigError(f"--max-time takes a time like 90s, 30m, 8h or 1h30m, not '{text}'")
    return sum(float(n) * UNITS[unit] for n, _, unit in re.findall(r"(\d+(\.\d+)?)([smhd])", text))
