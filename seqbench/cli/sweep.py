"""`seqbench sweep`, the same as `seqbench train -m`: train many runs, each of them once."""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from seqbench.cli import completion
from seqbench.wording import counted, duration

if TYPE_CHECKING:
    from seqbench.cli.sweep_view import Terminal
    from seqbench.launch.sweep import Sweep

EXAMPLES = """
\b
seqbench sweep model=tcn,lstm,gru task=adding,copy seed=0,1,2 budget=quick
seqbench sweep model=tcn 'seed=range(5)' optimizer.lr=1e-3,3e-3 --dry-run
seqbench sweep 'model=glob(*)' task=adding launch.workers=4 --max-time 8h
seqbench sweep model=tcn seed=0,1,2 launch=slurm launch.partition=gpu
seqbench sweep model=tcn,lstm task=copy search=optuna search.trials=20

The same sweep, run again, trains what is missing. Sweeps that overlap share the work.
Ctrl-C stops it with checkpoints; a second Ctrl-C kills its jobs. It exits with 0 if all runs
completed, 1 if some did not, 3 if they have no data, 130 if it was stopped or reached its time
limit.
"""

ConfigDir = Annotated[
    str | None, typer.Option(help="A folder with custom choices (model/mine.yaml).")
]
Force = Annotated[
    bool, typer.Option("--force", help="Train again from the start, also completed runs.")
]
Retry = Annotated[bool, typer.Option("--retry", help="Train failed and diverged runs again.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Sweeps: list the jobs and their estimated cost.")
]
FailFast = Annotated[
    bool, typer.Option("--fail-fast", help="Sweeps: stop at the first run that fails.")
]
MaxTime = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Sweeps: stop after 90s, 30m or 8h, with checkpoints."),
]
Wait = Annotated[
    bool, typer.Option(help="Sweeps: wait until the cluster has finished, or return at once.")
]
# Kinds of failures listed at the end, and further runs named for each kind.
MOST_SHOWN, MOST_NAMED = 20, 3
RESUME = "rerun the same command to resume"
STATES = {"new": "to run", "resume": "to resume", "held": "elsewhere"}
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
    """Train all combinations of the given values, in parallel. Interrupted runs resume."""
    from seqbench.cli.sweep_view import Terminal
    from seqbench.config.compose import Composer
    from seqbench.config.multirun import multirun
    from seqbench.errors import ConfigError, RunError
    from seqbench.launch.sweep import Policy, Sweep, View

    for word in overrides or []:
        if word.startswith("seeds="):
            raise ConfigError(f"a sweep takes seed=0,1,2, not {word}")
    policy = Policy(retry, force, fail_fast, seconds(max_time), dry_run, wait)
    view = Terminal(overrides or [], config_dir)
    composer = Composer(config_dir)
    sweep = Sweep(overrides or [], composer, policy, View() if dry_run else view)
    with watched(view):
        multirun(composer, overrides or [], sweep)
    if dry_run:
        show_plan(sweep)
        if sweep.summary is not None:
            typer.echo(sweep.summary, err=True)
        return
    if sweep.summary is None:
        show_results(sweep)
        report_missing(sweep)
        return
    typer.echo(sweep.summary)
    if sweep.stopped:  # failed trials are part of the summary, not an error
        code = 130 if sweep.was_interrupted else 1
        raise RunError(f"{sweep.stopped}: the search is not over; {RESUME}", code)
    if sweep.error is not None:
        raise sweep.error


sweep.__doc__ = f"{sweep.__doc__}\n{EXAMPLES}"


@contextmanager
def watched(view: "Terminal") -> Iterator[None]:
    """Hold the live view of a sweep open, and restore the terminal at the end.

    Raises:
        RunError: if a second Ctrl-C stopped the sweep; its exit code is 130.
    """
    from seqbench.errors import RunError

    try:
        yield
    except KeyboardInterrupt:
        raise RunError(f"stopped at once; {RESUME} from the last checkpoints", 130) from None
    finally:
        view.close()


def show_plan(sweep: "Sweep") -> None:
    """Print the state and the estimated training time of each job of a sweep, and the totals."""
    from seqbench.cli.sweep_view import Names, why
    from seqbench.launch.plan import forecasts, time_to_finish
    from seqbench.runs import lock

    names = Names(sweep.jobs.values())
    width = max((len(names.of(job)) for job in sweep.jobs.values()), default=0)
    forecast_of = forecasts(sweep)
    counts: Counter[str] = Counter()
    for folder, job in sweep.jobs.items():
        remark = ""
        if forecast := forecast_of.get(folder):
            state = STATES[forecast.state]
            cost = "cost unknown"
            if forecast.seconds is not None:
                cost = f"about {duration(forecast.seconds)}"
            origin = f", from step {forecast.step:,}" if forecast.state == "resume" else ""
            held = f"held by {lock.holder(folder / '.lease')}"
            remark = held if forecast.state == "held" else cost + origin
        else:
            ending = sweep.endings[folder]
            state = ending.how
            if folder in sweep.failures:
                remark = why(job, ending)
        counts[state] += 1
        typer.echo(f"{state:10}  {names.of(job):{width}}  {remark}".rstrip())
    costs = [f.seconds for f in forecast_of.values() if f.seconds is not None]
    finish = time_to_finish(sweep, costs)
    parts = []
    if costs:
        parts.append(f"about {duration(sum(costs))} of training")
        if finish is not None:
            parts.append(f"done after {duration(finish[0])} with {finish[1]} at a time")
    if unknown := counts["to run"] + counts["to resume"] - len(costs):
        runs = counted(unknown, "run")
        parts.append(f"{runs} without a cost estimate")
    summary = ", ".join(f"{count} {state}" for state, count in counts.items())
    if names.shared:
        typer.echo(f"all with {names.shared}", err=True)
    todo = ", ".join(parts) or "nothing to do"
    typer.echo(f"{summary}: {todo}" if summary else todo, err=True)


def show_results(sweep: "Sweep") -> None:
    """Print the table of all completed and diverged runs."""
    from rich.console import Console

    from seqbench.cli.table_view import show_table
    from seqbench.results.cells import aggregate
    from seqbench.results.tables.comparison import build_table

    over = [sweep.jobs[f] for f, e in sweep.endings.items() if e.how in ("completed", "diverged")]
    records = [record for job in over if (record := job.record) is not None]
    if records:
        show_table(build_table(aggregate(records)), Console(highlight=False))


def report_missing(sweep: "Sweep") -> None:
    """Print the failures of a sweep, grouped by reason, and raise if runs are missing.

    Raises:
        RunError: if runs are missing, unless they were left to a cluster without failures. Its
            exit code is `Sweep.exit_code`.
    """
    from seqbench.cli.sweep_view import Names, outcome
    from seqbench.errors import RunError

    names, failures, groups = Names(sweep.jobs.values()), sweep.failures, sweep.failure_groups()
    for first, *others in groups[:MOST_SHOWN]:
        typer.echo(f"{names.of(first)}: {outcome(first, failures[first.run.folder])}", err=True)
        if others:
            shown = ", ".join(map(names.of, others[:MOST_NAMED]))
            more = f" and {len(others) - MOST_NAMED} more" if len(others) > MOST_NAMED else ""
            typer.echo(f"  the same: {shown}{more}", err=True)
    if len(groups) > MOST_SHOWN:
        typer.echo(f"... and {len(groups) - MOST_SHOWN} other failures", err=True)
    if not sweep.missing:
        return
    if not sweep.policy.wait and not failures:
        typer.echo("left to the cluster: rerun the same command to see its progress", err=True)
        return
    why = f"{sweep.stopped}: " if sweep.stopped else ""
    failed = f", {len(failures)} of them failed" if failures else ""
    recorded = sum(sweep.jobs[folder].needs_retry(ending) for folder, ending in failures.items())
    ways = [RESUME] if recorded < sweep.missing else []
    if recorded:
        ways.append("--retry trains the failed runs again")
    raise RunError(
        f"{why}{sweep.missing} of {len(sweep.jobs)} runs are missing{failed}; {', '.join(ways)}",
        sweep.exit_code,
    )


def seconds(text: str | None) -> float | None:
    """Parse a time such as `90s` or `1h30m` into seconds; `None` stays `None`.

    Raises:
        ConfigError: if the text is not a time.
    """
    from seqbench.errors import ConfigError

    if text is None:
        return None
    if not re.fullmatch(r"(\d+(\.\d+)?[smhd])+", text):
        raise ConfigError(f"--max-time takes a time like 90s, 30m, 8h or 1h30m, not '{text}'")
    return sum(float(n) * UNITS[unit] for n, _, unit in re.findall(r"(\d+(\.\d+)?)([smhd])", text))
