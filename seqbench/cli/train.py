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
seqbench train model=gru optimizer=sgd optimizer.lr=1   another optimizer
seqbench train model=tcn task=adding seeds=8            eight runs as one batched model, for a GPU
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
        typer.Option(help="With --resume: a package that the run may import besides seqbench."),
    ] = None,
) -> None:
    """Train a model on a task, test it, and write a record."""
    from seqbench.errors import ConfigError, RunError

    many = [word for word in overrides or [] if word.startswith("seeds=")]
    if multirun and resume is None:
        sweep.sweep(overrides, config_dir, force, retry, dry_run, fail_fast, max_time, wait)
        return

    from seqbench.cli.progress import OneOfMany, Terminal
    from seqbench.config.compose import Composer, compose, read
    from seqbench.results.collect import find_run
    from seqbench.runs.identity import user_code_hashes
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
            own = " and ".join(config[node]["_target_"] for node in user_code_hashes(config))
            reason = f"{folder / 'config.yaml'} is not the configuration of this folder's run"
            if own:
                reason += f", or the file of {own} was edited, which makes another run"
            raise ConfigError(reason)
    elif not many:
        config = compose(overrides or [], config_dir)

    again = [f"--config-dir={config_dir}"] * (config_dir is not None) + (overrides or [])
    if many and resume is None:
        from seqbench.seeds import run_seeds

        words = [word for word in overrides or [] if word not in many]
        with Composer(config_dir) as composer:
            first = composer.compose(words)["seed"]
            seeds = range(first, first + number_of_seeds(many[-1]))
            configs = [composer.compose([*words, f"seed={seed}"]) for seed in seeds]

        def observer(one: dict[str, Any], shown: bool) -> "Observer":
            return Terminal(one, ()) if shown else OneOfMany()

        records = run_seeds(configs, observer, force=force, retry=retry)
    else:
        from seqbench.experiment import run

        configs = [config]
        records = [run(config, Terminal(config, again), force=force, retry=retry)]
    errors = []
    for record, one in zip(records, configs, strict=True):
        error = f"seed {record.seed}: {record.error}" if many else str(record.error)
        if record.status == "failed":
            log = Run.of(one).log_path
            error = f"run {record.run_id} failed: {record.error} (see {log}; --retry runs it again)"
        errors += [error] * (record.status != "completed")
    for error in errors[:-1]:
        print(f"error: {error}", file=sys.stderr)
    if errors:
        raise RunError(errors[-1])


def number_of_seeds(word: str) -> int:
    """Return the number N of a `seeds=N` override.

    Raises:
        ConfigError: if N is not a whole number from 1 to `MOST_SEEDS`.
    """
    from seqbench.errors import ConfigError

    text = word.partition("=")[2]
    if not (text.isdecimal() and len(text) < 5 and 1 <= int(text) <= MOST_SEEDS):
        raise ConfigError(f"seeds= takes a number from 1 to {MOST_SEEDS}, not '{text[:20]}'")
    return int(text)


train.__doc__ = f"{train.__doc__}\n{EXAMPLES}"
