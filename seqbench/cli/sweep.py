"""`seqbench sweep`, the same as `seqbench train -m`: train many runs, each of them once."""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seqbench.cli import completion
from seqbench.wording import duration

if TYPE_CHECKING:
    from seqbench.cli.sweep_view import Terminal
    from seqbench.launch.cost import Costs
    from seqbench.launch.job import Job
    from seqbench.launch.sweep import Sweep

EXAMPLES = """
\b
seqbench sweep model=tcn,lstm,gru,llama task=adding,copy seed=0,1,2 budget=quick
seqbench sweep model=tcn 'seed=range(5)' optimizer.lr=1e-3,3e-3 --dry-run
seqbench sweep 'model=glob(*)' task=adding launch.workers=4 --max-time 8h
seqbench sweep model=tcn seed=0,1,2 launch=slurm launch.partition=gpu

The same sweep, given again, does what is missing. Sweeps that overlap share the work.
Ctrl-C stops it with checkpoints, twice at once. It exits with 0 if all runs completed, 1 if some
did not, 3 if they have no data, 130 if it was stopped or its time is up.
"""

ConfigDir = Annotated[
    str | None, typer.Option(help="A folder with choices of your own (model/mine.yaml).")
]
Force = Annotated[bool, typer.Option("--force", help="Run again what is finished.")]
Retry = Annotated[bool, typer.Option("--retry", help="Run again what failed or diverged.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Sweeps: list the jobs and their estimated cost.")
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
# Kinds of failures listed at the end, and further runs named for each kind.
MOST_SHOWN, MOST_NAMED = 20, 3
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
    """Train all combinations of the given values, in parallel. Interrupted runs resume."""
    from seqbench.cli.sweep_view import Terminal
    from seqbench.config.compose import Composer
    from seqbench.errors import ConfigError, RunError
    from seqbench.launch.sweep import Policy, Sweep, View

    for word in overrides or []:
        if word.startswith("seeds="):
            raise ConfigError(f"a sweep takes seed=0,1,2, not {word}")
    policy = Policy(retry, force, fail_fast, seconds(max_time), dry_run, wait)
    view = Terminal()
    with Composer(config_dir) as composer:
        asked = Sweep(overrides or [], composer, policy, View() if dry_run else view)
        with watched(view):
            composer.multirun(overrides or [], asked)
    if dry_run:
        show_plan(asked)
        if asked.findings is not None:
            typer.echo(asked.findings, err=True)
        return
    if asked.findings is None:
        show_results(asked)
        complain(asked)
        return
    typer.echo(asked.findings)
    if asked.stopped:  # failed trials are part of the findings, not an error
        raise RunError(
            f"{asked.stopped}: the search is not over; the same command goes on",
            130 if asked.stopped in INTERRUPTIONS else 1,
        )


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
        raise RunError(
            "stopped at once; the same command goes on from the last checkpoints", 130
        ) from None
    finally:
        view.close()


def show_plan(sweep: "Sweep") -> None:
    """Print the state and the estimated training time of each job of a sweep, and the totals."""
    from seqbench.cli.sweep_view import Names
    from seqbench.launch.cost import Costs, wall_clock
    from seqbench.results.collect import collect

    is_due = len(sweep.endings) < len(sweep.jobs)
    folders = {Path(job.config["output_dir"]) / "runs" for job in sweep.jobs.values() if is_due}
    costs, names = Costs(collect(sorted(folders)).records), Names()
    names.learn(sweep.jobs.values())
    shown = [names.of(job) for job in sweep.jobs.values()]
    width = max(map(len, shown), default=0)
    counts: Counter[str] = Counter()
    known: list[float] = []
    for name, job in zip(shown, sweep.jobs.values(), strict=True):
        state, cost, remark = outlook(sweep, job, costs)
        counts[state] += 1
        if cost is not None:
            known.append(cost)
        typer.echo(f"{state:10}  {name:{width}}  {remark}".rstrip())
    at_a_time = places(sweep)
    parts = []
    if known:
        parts.append(f"about {duration(sum(known))} of training")
        if at_a_time is not None:
            took = duration(wall_clock(known, at_a_time))
            parts.append(f"done after {took} with {at_a_time} at a time")
    if unknown := counts["to run"] + counts["to resume"] - len(known):
        parts.append(f"{unknown} runs without a cost estimate")
    summary = ", ".join(f"{count} {state}" for state, count in counts.items())
    what = ", ".join(parts) or "nothing to do"
    typer.echo(f"{summary}: {what}" if summary else what, err=True)


def outlook(sweep: "Sweep", job: "Job", costs: "Costs") -> tuple[str, float | None, str]:
    """Return a job's state, its estimated seconds of training, and a remark.

    The estimate is `None` if there is nothing to train or no similar run on record.
    """
    from seqbench.cli.sweep_view import why
    from seqbench.launch.progress import Progress
    from seqbench.launch.sweep import FAILURES
    from seqbench.runs import lock

    ending = sweep.endings.get(job.run.folder)
    if ending is not None:
        return ending.how, None, why(job, ending) if ending.how in FAILURES else ""
    if lock.is_held(job.run.folder):
        return "elsewhere", None, "another process is training it"
    state, left, origin = "to run", 1.0, ""
    if not job.force and job.state() == "resume":
        progress = Progress(job.run).look()
        state, origin = "to resume", f", from step {progress.step:,}"
        if progress.total_steps:
            left = max(0.0, 1 - progress.step / progress.total_steps)
    cost = costs.of(job)
    if cost is None:
        return state, None, f"cost unknown{origin}"
    return state, cost * left, f"about {duration(cost * left)}{origin}"


def places(sweep: "Sweep") -> int | None:
    """Return how many jobs the local launcher runs at a time; `None` for other launchers.

    Raises:
        ConfigError: if the launcher refuses its settings.
    """
    words = dict(word.partition("=")[::2] for word in sweep.command)
    launcher = words.get("launch") or words.get("hydra/launcher") or "local"
    return sweep.engine().room() if sweep.engine and launcher == "local" else None


def show_results(sweep: "Sweep") -> None:
    """Print the table of all completed and diverged runs."""
    from rich.console import Console

    from seqbench.cli.sweep_view import record_of
    from seqbench.cli.table_view import show_table
    from seqbench.results.cells import aggregate
    from seqbench.results.tables.comparison import build_table
    from seqbench.runs.code_hash import source_hash

    over = [sweep.jobs[f] for f, e in sweep.endings.items() if e.how in ("completed", "diverged")]
    records = [record for job in over if (record := record_of(job)) is not None]
    if records:
        show_table(build_table(aggregate(records), source_hash()), Console(highlight=False))


def complain(sweep: "Sweep") -> None:
    """Print the failures of a sweep, grouped by reason, and raise if runs are missing.

    Raises:
        RunError: if runs are missing, unless they were left to a cluster without failures. The
            exit code is 130 if the user or the time limit stopped the sweep; else that of the
            failures if all missing runs failed with the same code; else 1.
    """
    from seqbench.cli.sweep_view import Names, needs_retry, told
    from seqbench.errors import RunError
    from seqbench.launch.sweep import FAILURES

    names = Names()
    names.learn(sweep.jobs.values())
    failed = {f: e for f, e in sweep.endings.items() if e.how in FAILURES}
    groups: dict[str, list[Path]] = {}
    for folder, ending in failed.items():
        alike = re.sub(r"\S*\d\S*", "#", f"{ending.how} {ending.reason}")
        groups.setdefault(alike, []).append(folder)
    for first, *others in list(groups.values())[:MOST_SHOWN]:
        job = sweep.jobs[first]
        typer.echo(f"{names.of(job)}: {told(job, failed[first])}", err=True)
        if others:
            shown = ", ".join(names.of(sweep.jobs[folder]) for folder in others[:MOST_NAMED])
            more = f" and {len(others) - MOST_NAMED} more" if len(others) > MOST_NAMED else ""
            typer.echo(f"  the same: {shown}{more}", err=True)
    if len(groups) > MOST_SHOWN:
        typer.echo(f"... and {len(groups) - MOST_SHOWN} other failures", err=True)
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
    recorded = sum(needs_retry(sweep.jobs[folder], ending) for folder, ending in failed.items())
    ways = ["the same command goes on"] if recorded < missing else []
    if recorded:
        ways.append("--retry runs again what failed")
    codes = {ending.code for ending in failed.values()}
    code = 1
    if sweep.stopped in INTERRUPTIONS:
        code = 130
    elif len(failed) == missing and len(codes) == 1:
        code = codes.pop()
    raise RunError(f"{why}{counts}; {', '.join(ways)}", code)


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
