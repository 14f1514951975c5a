"""`seqbench sweep`, which is `seqbench train -m`: many runs, each once."""

import re
from typing import TYPE_CHECKING, Annotated

import typer

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
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def sweep(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE,VALUE]...", help="As Hydra takes them for a sweep."),
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
    from seqbench.cli.sweep_view import Terminal, show_plan
    from seqbench.configuration import Composer
    from seqbench.errors import RunError
    from seqbench.launch.sweep import Policy, Sweep

    policy = Policy(retry, force, fail_fast, seconds(max_time), dry_run, wait)
    with Composer(config_dir) as composer:
        asked = Sweep(overrides or [], composer, policy, Terminal())
        composer.multirun(overrides or [], asked)
    if dry_run:
        show_plan(asked)
        return
    code, reason = verdict(asked)
    if code:
        error = RunError(reason)
        error.exit_code = code
        raise error


sweep.__doc__ = f"{sweep.__doc__}\n{EXAMPLES}"


def verdict(sweep: "Sweep") -> tuple[int, str]:
    """The exit code that says whether all is there, and why not."""
    raise NotImplementedError


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
