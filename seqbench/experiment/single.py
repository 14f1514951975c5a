"""Train and test one run."""

from seqbench import machine
from seqbench.config import Config
from seqbench.errors import RunError, is_out_of_memory
from seqbench.experiment.build import Experiment
from seqbench.experiment.continuation import Origin, read_origin
from seqbench.experiment.recording import Recording, observed
from seqbench.runs.observer import Observer
from seqbench.runs.record import Record
from seqbench.runs.run import Run
from seqbench.training.interruption import signals


def run(
    config: Config,
    observer: Observer | None = None,
    *,
    force: bool = False,
    retry: bool = False,
) -> Record:
    """Train and test what a config describes, unless its run is completed.

    An unfinished run is resumed from its last checkpoint. Settings of the process, such as the
    number of threads and the states of random generators, are restored at the end.

    Args:
        config: as `compose` returns it.
        observer: receives what happens.
        force: start again, whatever is there.
        retry: start a failed or diverged run again.

    Returns:
        The record; its status may be `diverged` or `failed`.

    Raises:
        ConfigError: if the model, the task or another node cannot be built, or the run that the
            config continues cannot be continued.
        DataError: if the task's data cannot be loaded.
        Interrupted: if a signal stopped the run; a checkpoint was written.
        RunError: if another process trains the run, its folder cannot be written, or memory is
            out.
    """
    observer = observer or Observer()
    folder = Run.of(config)
    record = finished(folder, force=force, retry=retry)
    if record is None:
        try:
            with machine.settings_restored():
                # Built before anything is written: a config that cannot be built leaves no folder.
                experiment = Experiment(config)
                origin = read_origin(experiment, folder, force=force)
                with folder.held():
                    # Another process may have finished it in the meantime.
                    record = finished(folder, force=force, retry=retry)
                    if record is None:
                        with observed(config, folder, observer, force=force) as watching:
                            return train(experiment, folder, watching, origin)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            where = f"device={config['device']}"
            raise RunError(f"out of memory on {where}: model and data do not fit") from error
    observer.finished(record)
    return record


def train(experiment: Experiment, folder: Run, observer: Observer, origin: Origin | None) -> Record:
    """Train from the last checkpoint, from `origin` or from the start; test; write the record."""
    recording = Recording(experiment, folder, observer, origin=origin)

    def fit() -> None:
        with signals() as interrupted:
            training, state = recording.training, experiment.state
            if "compress" in experiment.config and state.progress.best is None:
                # Scored before the first step, since fine-tuning may have none, or make it worse.
                experiment.trainer.evaluate_and_keep_best(training, state.model)
                training.save()
            experiment.trainer.fit(training, interrupted, experiment.wrap_step)

    return recording.finish(fit)


def finished(folder: Run, *, force: bool, retry: bool) -> Record | None:
    """Return the record of a run that is not to be trained again, else `None`."""
    # With `force` not even read: it may be damaged.
    record = None if force else folder.record
    return None if record is None or (retry and record.status != "completed") else record
