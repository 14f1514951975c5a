"""Several seeds of one configuration at once: as many runs, one batched model."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import groupby

from seqbench.configuration import Config
from seqbench.errors import ConfigError, RunError, SeqbenchError
from seqbench.experiment import Experiment, build_optimizer, finished
from seqbench.interruption import signals
from seqbench.out_of_memory import is_out_of_memory
from seqbench.runs.observer import Observer
from seqbench.runs.record import Record
from seqbench.runs.run import Run
from seqbench.training import together
from seqbench.training.trainer import Interrupted, Training


def run_seeds(
    configs: Sequence[Config],
    observer_of: Callable[[Config, bool], Observer],
    *,
    force: bool = False,
    retry: bool = False,
) -> list[Record]:
    """Train and test a configuration with several seeds as one batched model.

    Each is a run of its own, as `experiment.run` makes it: what is done is not done again, and what
    was cut off goes on from its checkpoint. A record says how many were trained together.

    Args:
        configs: checked, as `configuration.compose` gives them; they differ in the seed only.
        observer_of: gives who watches the run of a configuration, and is told whether it is the one
            to be shown for all.
        force: run them again from the start, whatever is there.
        retry: run failed or diverged ones again, from the start.

    Returns:
        The records, in the order of the configurations.

    Raises:
        ConfigError: something cannot be built, or not be trained as one model.
        DataError: the task's data cannot be had.
        Interrupted: a signal asked to stop; each run has written a checkpoint.
        RunError: another process holds one of the runs, or its folder cannot be written.
    """
    alike = [{k: v for k, v in one.items() if k not in ("seed", "tracker")} for one in configs]
    if any(one != alike[0] for one in alike):
        raise ConfigError("seeds= goes with one configuration, and here more hangs on the seed")
    folders = [Run.of(config) for config in configs]

    def due() -> list[int]:
        runs = enumerate(folders)
        return [i for i, folder in runs if finished(folder, force=force, retry=retry) is None]

    shown = next(iter(due()), 0)
    observers = [observer_of(config, i == shown) for i, config in enumerate(configs)]
    with ExitStack() as stack:
        try:
            experiments = {i: Experiment(configs[i], folders[i]) for i in due()}
            if experiments:
                first = next(iter(experiments.values()))
                inputs = first.task.train_batch(0).inputs
                together.check(first.trainer, first.state, inputs)
            # All of them, before the first is begun: else `force` would empty some for nothing.
            for i in experiments:
                stack.enter_context(folders[i].held())
            trained = [i for i in due() if i in experiments]
            for i, folder in enumerate(folders):
                if i not in trained and folder.record is not None:
                    observers[i].finished(folder.record)
            trainings: dict[int, Training] = {}
            for i in trained:
                experiments[i].together = len(trained)
                watching = experiments[i].watched(observers[i], force=force)
                trainings[i] = experiments[i].start(stack.enter_context(watching))
                stack.callback(trainings[i].events.close)
            fit_all(experiments, trainings)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise RunError(
                f"out of memory on device={configs[0]['device']}: {len(experiments)} seeds at once "
                "do not fit"
            ) from error
    records = [folder.record for folder in folders]
    return [record for record in records if record is not None]


def fit_all(experiments: dict[int, Experiment], trainings: dict[int, Training]) -> None:
    """Train, test and record; those together that stand at the same step.

    Raises:
        Interrupted: after all that were trained have been dealt with.
    """

    def step(i: int) -> int:
        return trainings[i].state.progress.step

    for _, members in groupby(sorted(trainings, key=step), key=step):
        group = list(members)
        experiment = experiments[group[0]]
        try:
            with signals() as interrupted:
                ends: Sequence[Exception | None] = together.fit(
                    experiment.trainer,
                    [trainings[i] for i in group],
                    partial(build_optimizer, experiment.config),
                    interrupted,
                )
        except (SeqbenchError, OSError):
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            ends = [error] * len(group)
        stop: Interrupted | None = None
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
