"""Train several seeds of one config at once: one run per seed, one batched model."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import groupby

from seqbench import kernels
from seqbench.config import Config
from seqbench.errors import ConfigError, Interrupted, RunError, SeqbenchError, is_out_of_memory
from seqbench.experiment.build import Experiment, build_optimizer
from seqbench.experiment.recording import Recording, observed
from seqbench.experiment.single import finished
from seqbench.runs.observer import Observer
from seqbench.runs.record import Record
from seqbench.runs.run import Run
from seqbench.training import together
from seqbench.training.interruption import signals


def run_seeds(
    configs: Sequence[Config],
    observer_of: Callable[[Config, bool], Observer],
    *,
    force: bool = False,
    retry: bool = False,
) -> list[Record]:
    """Train and test a config with several seeds as one batched model.

    Each seed is a run of its own, as in `experiment.run`: finished runs are not trained again, and
    interrupted ones resume from their checkpoints. A record says how many were trained together.

    Args:
        configs: checked configs from `compose`; they differ in the seed only.
        observer_of: returns the observer of a config's run; its second argument is True for the one
            run that is shown for all.
        force: True to train all runs again from the start.
        retry: True to train failed or diverged runs again from the start.

    Returns:
        The records, in the order of the configs.

    Raises:
        ConfigError: if a config cannot be built, or the seeds cannot be trained as one model.
        DataError: if the task's data cannot be loaded.
        Interrupted: if a signal asked to stop; each run has written a checkpoint.
        RunError: if another process holds one of the runs, a folder cannot be written, or memory
            runs out.
    """
    alike = [{k: v for k, v in one.items() if k not in ("seed", "tracker")} for one in configs]
    if any(one != alike[0] for one in alike):
        raise ConfigError(
            "seeds= needs one config, but here the configs differ in more than the seed"
        )
    if "init_from" in configs[0]:
        raise ConfigError("seeds= does not go together with init_from: use seqbench sweep seed=0,1")
    if "continues" in configs[0]:
        raise ConfigError("seeds= does not go together with continues: continue each run by itself")
    folders = [Run.of(config) for config in configs]

    def due() -> list[int]:
        runs = enumerate(folders)
        return [i for i, folder in runs if finished(folder, force=force, retry=retry) is None]

    shown = next(iter(due()), 0)
    observers = [observer_of(config, i == shown) for i, config in enumerate(configs)]
    with ExitStack() as stack:
        try:
            experiments = {i: Experiment(configs[i]) for i in due()}
            if experiments:
                first = next(iter(experiments.values()))
                together.check(first.trainer, first.state, first.task)
            # Hold all runs before starting the first: else `force` could empty some in vain.
            for i in experiments:
                stack.enter_context(folders[i].held())
            trained = [i for i in due() if i in experiments]
            for i, folder in enumerate(folders):
                if i not in trained and folder.record is not None:
                    observers[i].finished(folder.record)
            recordings: dict[int, Recording] = {}
            for i in trained:
                watching = stack.enter_context(
                    observed(configs[i], folders[i], observers[i], force=force)
                )
                recordings[i] = Recording(experiments[i], folders[i], watching, len(trained))
                stack.callback(recordings[i].training.events.close)
            fit_all(list(recordings.values()))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise RunError(
                f"out of memory on device={configs[0]['device']}: {len(experiments)} seeds at once "
                "do not fit"
            ) from error
    records = [folder.record for folder in folders]
    return [record for record in records if record is not None]


def fit_all(recordings: Sequence[Recording]) -> None:
    """Train, test and record the runs; train those together that are at the same step.

    Raises:
        Interrupted: if a signal asked to stop; all runs of the group have been handled by then.
    """

    def step(recording: Recording) -> int:
        return recording.training.state.progress.step

    for _, members in groupby(sorted(recordings, key=step), key=step):
        group = list(members)
        experiment = group[0].experiment
        try:
            with signals() as interrupted, kernels.recording() as compiled:
                ends: Sequence[Exception | None] = together.fit(
                    experiment.trainer,
                    [recording.training for recording in group],
                    partial(build_optimizer, experiment.config),
                    interrupted,
                    experiment.wrap_step,
                )
        except (SeqbenchError, OSError):
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            ends = [error] * len(group)
        stop: Interrupted | None = None
        for recording, end in zip(group, ends, strict=True):
            try:
                recording.finish(partial(raise_, end), len(group), compiled)
            except Interrupted as interruption:
                stop = interruption
        if stop is not None:
            raise stop


def raise_(end: Exception | None) -> None:
    """Raise the error that ended a training, if there is one."""
    if end is not None:
        raise end
