"""`seqbench train`: train one model on one task."""

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seqbench.cli import completion, sweep
from seqbench.cli.overriding import refuse
from seqbench.cli.sweep import ConfigDir, DryRun, FailFast, Force, MaxTime, Retry, Wait

if TYPE_CHECKING:
    from seqbench.runs.observer import Observer
    from seqbench.runs.record import Record

MOST_SEEDS = 256

EXAMPLES = """
\b
seqbench train model=tcn task=adding budget=quick      two minutes on a laptop
seqbench train model=lstm task=copy task.length=500    another sequence length
seqbench train model=gru optimizer=sgd optimizer.lr=1  another optimizer
seqbench train model=tcn task=adding seeds=8           eight runs at once
seqbench train model=llama task=char_file task.path=my.txt
seqbench train --config-dir my_configs model=mine      a custom model
seqbench train --resume 551aafae trainer.steps=9000    a longer training

Every value of the configuration can be set as key=value: see `seqbench config show`. The settings
of a task or a model, with their meaning: `seqbench config explain task=forecast_file`.
The same configuration is the same run: a finished one is shown, an unfinished one resumes.
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
            help="Resume this run: its id, a prefix of it, FOLDER/ID, or its path. With "
            "trainer.steps=N, continue it, if it is completed.",
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
    from seqbench.errors import RunError

    words = overrides or []
    if resume is None:
        refuse({"--trust": trust}, "is for --resume")
    else:
        refuse({"--config-dir": config_dir}, "is not for --resume: a run keeps its settings")
    if multirun and resume is None:
        sweep.sweep(words, config_dir, force, retry, dry_run, fail_fast, max_time, wait)
        return
    for_sweeps: dict[str, object] = {
        "-m": multirun,
        "--dry-run": dry_run,
        "--fail-fast": fail_fast,
        "--max-time": max_time,
        "--no-wait": not wait,
    }
    for_sweeps |= {word: True for word in words if word.startswith(("launch", "search"))}
    hint = "add -m" if resume is None else "leave out --resume"
    refuse(for_sweeps, f"is for sweeps: {hint}")
    seeds = [word for word in words if word.startswith("seeds=")]
    if seeds and resume is None:
        others = [word for word in words if word not in seeds]
        train_together(others, number_of_seeds(seeds[-1]), config_dir, force, retry)
        return
    again: list[str] = []
    notes: dict[str, str] = {}
    if resume is not None:
        from seqbench.launch.resume import config_to_resume

        config = config_to_resume(resume, words, trust or [])
    else:
        from seqbench.config.compose import compose
        from seqbench.config.missing_recipe import missing_recipes

        refuse_lists_of_paths(words)
        config = compose(words, config_dir)
        again = [f"--config-dir={config_dir}"] * (config_dir is not None) + words
        notes = missing_recipes([config], words, config_dir)

    from seqbench.cli.progress import Terminal
    from seqbench.experiment import run

    terminal = Terminal(config, again, list(notes.values()))
    with terminal.closed_at_the_end():
        record = run(config, terminal, force=force, retry=retry)
    if record.status != "completed":
        raise RunError(failure(record, config))


def train_together(
    words: list[str], count: int, config_dir: str | None, force: bool, retry: bool
) -> None:
    """Train several seeds as one model, with the progress of the first on stderr.

    Raises:
        RunError: if a run failed or diverged.
    """
    from seqbench.cli.progress import OneOfMany, Terminal
    from seqbench.config.compose import Composer
    from seqbench.config.missing_recipe import missing_recipes
    from seqbench.errors import RunError
    from seqbench.experiment.seeds import run_seeds
    from seqbench.launch.configs import compose_all

    composer = Composer(config_dir)
    first = composer.compose(words)["seed"]
    seeds = range(first, first + count)
    configs = compose_all(composer, [[*words, f"seed={seed}"] for seed in seeds])
    notes = missing_recipes(configs, words, config_dir)

    with ExitStack() as stack:

        def observer(config: dict[str, Any], shown: bool) -> "Observer":
            if not shown:
                return OneOfMany()
            terminal = Terminal(config, (), list(notes.values()))
            stack.enter_context(terminal.closed_at_the_end())
            return terminal

        records = run_seeds(configs, observer, force=force, retry=retry)
    errors = [
        failure(record, config)
        if record.status == "failed"
        else f"seed {record.seed}: {record.error}"
        for record, config in zip(records, configs, strict=True)
        if record.status != "completed"
    ]
    for error in errors[:-1]:
        print(f"error: {error}", file=sys.stderr)
    if errors:
        raise RunError(errors[-1])


def failure(record: "Record", config: dict[str, Any]) -> str:
    """Return why a run did not complete; for a failed one, its log and the way to repeat it."""
    from seqbench.runs.run import Run

    if record.status != "failed":
        return str(record.error)
    log = Run.of(config).log_path
    return f"run {record.run_id} failed: {record.error} (see {log}; --retry runs it again)"


def refuse_lists_of_paths(words: list[str]) -> None:
    """Raise `ConfigError` for a path with an unquoted comma, and say how to quote it."""
    from seqbench.config.overrides import as_text, quoted
    from seqbench.errors import ConfigError

    for word in words:
        key, _, value = word.partition("=")
        if key.lstrip("+") == "task.path" and as_text(word) != f"{key}={quoted(value)}":
            raise ConfigError(
                f"a run takes one {key}, not '{value}': 'seqbench sweep' takes several; write "
                f'"{key}={quoted(value)}" for a file with a comma in its name'
            )


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
