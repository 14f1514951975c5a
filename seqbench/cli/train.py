"""`seqbench train`: train one model on one task."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seqbench.cli import completion, sweep
from seqbench.cli.sweep import ConfigDir, DryRun, FailFast, Force, MaxTime, Retry, Wait

if TYPE_CHECKING:
    from seqbench.runs.observer import Observer

MOST_SEEDS = 256

EXAMPLES = """
\b
seqbench train model=tcn task=adding budget=quick       two minutes on a laptop
seqbench train model=lstm task=copy task.length=500     the task at another size
seqbench train model=gru optimizer=sgd optimizer.lr=1   another optimiser
seqbench train model=tcn task=adding seeds=8            eight runs in the time of few, on a GPU
seqbench train model=llama task=char_file task.path=my.txt
seqbench train --config-dir my_configs model=mine       your own model

Every value of the configuration can be set as key=value: see `seqbench config show`.
The same configuration is the same run: a finished one is shown, an unfinished one goes on.
"""


def train(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Choices and values, as Hydra takes them.",
            autocompletion=completion.overrides,
        ),
    ] = None,
    config_dir: ConfigDir = None,
    multirun: Annotated[
        bool, typer.Option("--multirun", "-m", help="A sweep: see `seqbench sweep --help`.")
    ] = False,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Go on with this run: its id, a prefix of it, or a path.",
            autocompletion=completion.runs,
        ),
    ] = None,
    force: Force = False,
    retry: Retry = False,
    dry_run: DryRun = False,
    fail_fast: FailFast = False,
    max_time: MaxTime = None,
    wait: Wait = True,
    trust: Annotated[
        list[str] | None,
        typer.Option(help="With --resume: a package that the run may name besides ours."),
    ] = None,
) -> None:
    """Train a model on a task, test it, and keep a record."""
    from seqbench.errors import ConfigError, RunError

    many = [word for word in overrides or [] if word.startswith("seeds=")]
    if multirun and resume is None:
        if many:
            raise ConfigError(f"a sweep takes seed=0,1,2, not {many[-1]}")
        sweep.sweep(overrides, config_dir, force, retry, dry_run, fail_fast, max_time, wait)
        return

    from seqbench.cli.progress import OneOfMany, Terminal
    from seqbench.configuration import compose, read
    from seqbench.results.collect import find_run
    from seqbench.runs.run import Run

    of_sweeps = [word for word in overrides or [] if word.startswith(("launch", "search"))]
    if multirun or dry_run or fail_fast or max_time is not None or not wait or of_sweeps:
        way = "add -m" if resume is None else "leave out --resume"
        raise ConfigError(f"that is for sweeps: {way}")
    if resume is not None:
        if any(not word.startswith("data_dir=") for word in overrides or []):
            raise ConfigError(
                "--resume goes on with a run as it was configured: leave out key=value, but for "
                "data_dir=, which may be elsewhere here"
            )
        folder = find_run(resume, Path("outputs"))
        config = read(folder / "config.yaml", trust or ())
        config["data_dir"] = overrides[-1].partition("=")[2] if overrides else None
        folder = folder.resolve()
        config["output_dir"] = str(folder.parents[min(3, len(folder.parents) - 1)])
        if Run.of(config).folder.resolve() != folder:
            raise ConfigError(
                f"{folder / 'config.yaml'} is not the configuration of this folder's run"
            )
    else:
        config = compose([word for word in overrides or [] if word not in many], config_dir)

    again = [f"--config-dir={config_dir}"] * (config_dir is not None) + (overrides or [])
    if many:
        seeds = seeds_of(many[-1], config["seed"])

        from seqbench.seeds import run_seeds

        def observer(one: dict[str, Any]) -> "Observer":
            first = one["seed"] == seeds[0]
            return Terminal(one, ()) if first else OneOfMany(one["seed"])

        records = run_seeds(config, seeds, observer, force=force, retry=retry)
    else:
        from seqbench.experiment import run

        records = [run(config, Terminal(config, again), force=force, retry=retry)]
    lost = [record for record in records if record.status != "completed"]
    for record in lost:
        error = str(record.error)
        if record.status == "failed":
            log = Run.of(config | {"seed": record.seed}).log_path
            error = f"run {record.run_id} failed: {error} (see {log}; --retry runs it again)"
        if record is lost[-1]:
            raise RunError(error)
        print(f"error: {error}", file=sys.stderr)


def seeds_of(word: str, first: int) -> range:
    """The seeds that `seeds=8` means, from the first one on.

    Raises:
        ConfigError: it is not a number from 1 to `MOST_SEEDS`.
    """
    from seqbench.errors import ConfigError

    text = word.partition("=")[2]
    if not (text.isdecimal() and 1 <= int(text) <= MOST_SEEDS):
        raise ConfigError(f"seeds= takes a number from 1 to {MOST_SEEDS}, not '{text}'")
    return range(first, first + int(text))


train.__doc__ = f"{train.__doc__}\n{EXAMPLES}"
