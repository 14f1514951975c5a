"""Several seeds of one configuration at once: as many runs, one batched model."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import groupby

import torch

from seqbench.configuration import Config
from seqbench.errors import RunError, SeqbenchError
from seqbench.experiment import Experiment, build_optimizer, finished
from seqbench.interruption import signals
from seqbench.runs.observer import Observer
from seqbench.runs.record import Record
from seqbench.runs.run import Run
from seqbench.training import together
from seqbench.training.trainer import Interrupted, Training


def run_seeds(
    config: Config,
    seeds: Sequence[int],
    observer_of: Callable[[Config], Observer],
    *,
    force: bool = False,
    retry: bool = False,
) -> list[Record]:
    """Train and test a configuration with several seeds as one batched model.

    Each is a run of its own, as `experiment.run` makes it: what is done is not done again, and what
    was cut off goes on from its checkpoint. A record says how many were trained together.

    Args:
        config: checked, as `configuration.compose` gives it; its own seed does not count.
        seeds: one for each run.
        observer_of: gives who watches the run of a configuration.
        force: run them again from the start, whatever is there.
        retry: run failed or diverged ones again, from the start.

    Returns:
        The records, in the order of the seeds.

    Raises:
        ConfigError: something cannot be built, or not be trained as one model.
        DataError: the task's data cannot be had.
        Interrupted: a signal asked to stop; each run has written a checkpoint.
        RunError: another process holds one of the runs, or its folder cannot be written.
    """
    configs = [config | {"seed": seed} for seed in seeds]
    folders = [Run.of(each) for each in configs]
    observers = [observer_of(each) for each in configs]
    again = {"force": force, "retry": retry}
    due = [i for i, folder in enumerate(folders) if finished(folder, **again) is None]
    trained: set[int] = set()
    with ExitStack() as stack:
        try:
            experiments = {i: Experiment(configs[i], folders[i]) for i in due}
            for experiment in list(experiments.values())[:1]:
                batch = experiment.task.train_batch(0)
                together.check(experiment.trainer, experiment.state, batch.inputs)
            trainings: dict[int, Training] = {}
            for i, experiment in experiments.items():
                watching = stack.enter_context(experiment.held(observers[i], **again))
                if watching is not None:
                    trainings[i] = experiment.start(watching)
                    stack.callback(trainings[i].events.close)
            fit_all(experiments, trainings)
        except torch.OutOfMemoryError as error:
            raise RunError(
                f"out of memory on device={config['device']}: {len(due)} seeds at once do not fit"
            ) from error
        trained = set(trainings)
    records = []
    for i, folder in enumerate(folders):
        record = folder.record
        assert record is not None
        records.append(record)
        if i not in trained:
            observers[i].finished(record)
    return records


def fit_all(experiments: dict[int, Experiment], trainings: dict[int, Training]) -> None:
    """Train, test and record; those together that stand at the same step.

    Raises:
        Interrupted: after all have been dealt with.
    """

    def step(i: int) -> int:
        return trainings[i].state.progress.step

    stop: Interrupted | None = None
    with signals() as interrupted:
        for _, members in groupby(sorted(trainings, key=step), key=step):
            group = list(members)
            experiment = experiments[group[0]]
            try:
                ends: Sequence[Exception | None] = together.fit(
                    experiment.trainer,
                    [trainings[i] for i in group],
                    partial(build_optimizer, experiment.config),
                    interrupted,
                )
            except (SeqbenchError, OSError, torch.OutOfMemoryError):
                raise
            except Exception as error:
                ends = [error] * len(group)
            for i, end in zip(group, ends, strict=True):
                experiments[i].together = len(group)
                try:
                    experiments[i].finish(trainings[i], partial(raise_, end))
                except Interrupted as interruption:
                    stop = interruption
    if stop is not None:
        raise stop


def raise_(end: Exception | None) -> None:
    """Raise what ended a training, if something did."""
    if end is not None:
        raise end
