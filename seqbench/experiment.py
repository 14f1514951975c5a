"""Train and test what a config describes, and return the record. The public Python API.

from seqbench.config.compose import compose
from seqbench.experiment import run

record = run(compose(["model=tcn", "task=adding", "budget=quick"]))
print(record.score)
"""

import os
import sys
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import nn

from seqbench import kernels, machine
from seqbench.config.compose import Config, build
from seqbench.errors import ConfigError, RunError, SeqbenchError
from seqbench.interruption import signals
from seqbench.out_of_memory import is_out_of_memory
from seqbench.runs.code_hash import source_hash
from seqbench.runs.events import EventLog, read_events
from seqbench.runs.identity import user_code_hashes, without_place
from seqbench.runs.log import LineLog
from seqbench.runs.observer import Observer, Observers
from seqbench.runs.record import Record, Score
from seqbench.runs.run import Run
from seqbench.tasks.task import Task
from seqbench.trackers.tracker import Guarded
from seqbench.training import checkpoint
from seqbench.training.graph import Graphs, can_capture, check_fused
from seqbench.training.state import load_weights
from seqbench.training.trainer import (
    Diverged,
    Interrupted,
    Step,
    Trainer,
    Training,
    check_finite,
)

# With trainer.watch=test the score is the mean of the last test results; its split says so.
TESTS_IN_MEAN, TEST_MEAN = 3, "test_mean"


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
        config: as `configuration.compose` returns it.
        observer: receives what happens.
        force: start again, whatever is there.
        retry: start a failed or diverged run again.

    Returns:
        The record; its status may be `diverged` or `failed`.

    Raises:
        ConfigError: if the model, the task or another node cannot be built.
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
                experiment = Experiment(config, folder)
                with folder.held():
                    # Another process may have finished it in the meantime.
                    if finished(folder, force=force, retry=retry) is None:
                        with experiment.watched(observer, force=force) as watching:
                            return experiment.run(watching)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            where = f"device={config['device']}"
            raise RunError(f"out of memory on {where}: model and data do not fit") from error
        record = folder.record
    assert record is not None
    observer.finished(record)
    return record


def finished(folder: Run, *, force: bool, retry: bool) -> Record | None:
    """Return the record of a run that is not to be trained again, else `None`."""
    # With `force` not even read: it may be damaged.
    record = None if force else folder.record
    return None if record is None or (retry and record.status != "completed") else record


class Experiment:
    """The parts of a run, built from its config, and the steps from the first to the record."""

    def __init__(self, config: Config, folder: Run) -> None:
        self.config = config
        self.folder = folder
        self.started = datetime.now(timezone.utc)
        self.device = machine.prepare(config)
        machine.reset_peak_memory(self.device)
        self.trainer: Trainer = build("trainer", config)
        # Load data first: the most common failure.
        self.task = build_task(config, self.trainer)
        model = build_model(config, self.task)
        self.task.to(self.device)
        model.to(self.device)
        trainable = [p for p in model.parameters() if p.requires_grad]
        if not trainable:
            raise ConfigError("the model has no parameters to train")
        self.parameters = sum(p.numel() for p in trainable)
        optimizer = build_optimizer(config, trainable)
        self.state = self.trainer.begin(model, optimizer, build("schedule", config))
        if self.trainer.graph:
            check_fused(optimizer)

    @property
    def length(self) -> int:
        """The task's size as its paper counts it: T of copy memory is less than the model reads."""
        return int(self.config["task"].get("length", self.task.spec.length))

    @property
    def captures_steps(self) -> bool:
        """True if training steps are captured as CUDA graphs."""
        return self.trainer.graph and can_capture(self.device)

    def wrap_step(self, optimizer: torch.optim.Optimizer, step: Step) -> Step:
        """Return a training step that runs as CUDA graphs, if that is configured."""
        return Graphs(optimizer).wrap(step) if self.captures_steps else step

    @contextmanager
    def watched(self, observer: Observer, *, force: bool) -> Iterator[Observer]:
        """Open the log and the trackers of the run, which this process holds.

        A finished attempt, or with `force` any, is deleted first.
        """
        if force or self.folder.record is not None:
            self.folder.start_over()
        with self.folder.log() as write, trackers(self.config, write) as watching:
            yield Observers(LineLog(write), observer, watching)

    def run(self, observer: Observer) -> Record:
        """Train from the last checkpoint or from the start, test, and write the record."""
        training = self.start(observer)

        def fit() -> None:
            with signals() as interrupted:
                self.trainer.fit(training, interrupted, self.wrap_step)

        return self.finish(training, fit)

    def start(self, observer: Observer, together: int = 1) -> Training:
        """Restore the last checkpoint, if there is one, and announce the training.

        Args:
            observer: receives what happens.
            together: seeds that are trained as one model, this one among them.
        """
        folder, state = self.folder, self.state
        offset = 0
        saved, remark = checkpoint.load_last(folder.checkpoints)
        if saved is not None:
            offset = state.restore(*saved)
        folder.write_config({k: v for k, v in self.config.items() if k != "tracker"})
        primary = self.task.primary
        folder.append_history(
            "resumed" if saved else "started",
            step=state.progress.step,
            total_steps=self.trainer.total_steps(self.task),
            metric=primary.metric,
            direction=primary.direction,
        )
        if self.trainer.graph and not self.captures_steps:
            remark = "; ".join([*([remark] if remark else []), "trainer.graph is for a GPU"])
        observer.started(self.facts() | {"together": together, "remark": remark})
        events = EventLog(folder.events_path, offset)
        return Training(state, self.task, events, folder.checkpoints, observer)

    def finish(
        self,
        training: Training,
        fit: Callable[[], None],
        together: int = 1,
        compiled: Collection[str] = (),
    ) -> Record:
        """Call `fit`, test, and write the record.

        Args:
            training: as `start` returned it.
            fit: trains, or raises what ended the training.
            together: seeds that are trained as one model, this one among them.
            compiled: kernels' sources that ran before.
        """
        folder, state = self.folder, self.state
        metrics: dict[str, dict[str, float | None]] = {}
        status, error = "completed", None
        try:
            with kernels.recording() as used:
                fit()
                metrics = self.test()
        except Interrupted as stop:
            folder.append_history("interrupted", step=state.progress.step, reason=str(stop))
            raise
        except Diverged as divergence:
            status, error = "diverged", str(divergence)
        except (SeqbenchError, OSError):
            raise  # of the machine, not of the run, which can be resumed
        except Exception as failure:
            status, error = "failed", f"{type(failure).__name__}: {failure}".split("\n")[0]
            if is_out_of_memory(failure):
                error = f"out of memory on {self.device}: {self.smaller_parts()}"
            with folder.log_path.open("a", encoding="utf-8") as log:
                log.write(traceback.format_exc())
            if os.environ.get("SEQBENCH_TRACEBACK"):
                traceback.print_exc()
        finally:
            training.events.close()
        record = self.record(status, error, metrics, together, used.union(compiled))
        folder.finish(record)
        folder.append_history(status, step=state.progress.step)
        training.observer.finished(record)
        return record

    def test(self) -> dict[str, dict[str, float | None]]:
        """Return the metrics of the weights with the best validation score; test is read here.

        With `trainer.watch=test` there are no such weights: the score is the mean of the last
        results on test.
        """
        model = self.state.model
        if self.trainer.watch == "test":
            events = [e for e in read_events(self.folder.events_path) if e["split"] == "test"]
            last = events[-TESTS_IN_MEAN:]
            results = {k: [e[k] for e in last] for k in last[-1] if k not in ("step", "split")}
            # Values that were not finite are `None`.
            mean = {k: None if None in v else fmean(v) for k, v in results.items()}
            return {"test": {k: v[-1] for k, v in results.items()}, TEST_MEAN: mean}
        try:
            tensors, facts = checkpoint.load(self.folder.checkpoints / checkpoint.BEST)
        except RunError as error:
            raise RunError(f"{error}; --force starts the run again") from error
        load_weights(model, tensors)
        test = self.trainer.evaluate(model, self.task, "test")
        metric = self.task.primary.metric
        check_finite(f"test {metric}", test[metric], self.state.progress)
        return {"valid": dict(facts["metrics"]), "test": dict(test)}

    def smaller_parts(self) -> str:
        """Return what to try if a batch does not fit into memory."""
        size, parts = self.trainer.batch_size, self.trainer.accumulate
        more = next((n for n in range(parts + 1, size + 1) if size % n == 0), None)
        if more is None:
            return f"try a smaller model or task; trainer.batch_size={size} is in parts of one"
        return (
            f"at trainer.batch_size={size} try trainer.accumulate={more}, the same batch in "
            "smaller parts"
        )

    def facts(self) -> dict[str, Any]:
        """Return what observers show before training."""
        return {
            "config": self.config,
            "primary": self.task.primary,
            "baseline": self.task.baseline,
            "optimum": self.task.optimum,
            "length": self.length,
            "sequence": self.task.spec.length,
            "notes": self.task.notes,
            "parameters": self.parameters,
            "device": machine.device_name(self.device),
            "step": self.state.progress.step,
            "best": self.state.progress.best,
            "total_steps": self.trainer.total_steps(self.task),
            "receptive_field": getattr(self.state.model, "receptive_field", None),
        }

    def record(
        self,
        status: Any,
        error: str | None,
        metrics: dict[str, dict[str, float | None]],
        together: int,
        compiled: set[str],
    ) -> Record:
        """Return the record of the run; `compiled` are the kernels' sources that it ran."""
        progress = self.state.progress
        primary = self.task.primary
        split = "test" if self.trainer.watch == "valid" else TEST_MEAN
        value = metrics.get(split, {}).get(primary.metric)
        score = None
        if value is not None:
            score = Score(
                metric=primary.metric, split=split, value=value, direction=primary.direction
            )
        notes = dict(self.task.notes)
        if self.trainer.watch == "test":
            notes["score"] = f"mean of the last results on test, {TESTS_IN_MEAN} at most"
        if score is not None and primary.solved is not None:
            notes["solved"] = int(primary.is_solved(value))  # type: ignore[arg-type]
        seconds = progress.seconds
        return Record(
            run_id=self.folder.run_id,
            status=status,
            task=self.config["choices"]["task"],
            model=self.config["choices"]["model"],
            seed=self.config["seed"],
            budget=self.config["budget"],
            protocol=self.config["protocol"],
            length=self.length,
            metrics=metrics,
            score=score,
            baseline=self.task.baseline,
            optimum=self.task.optimum,
            parameters=self.parameters,
            steps=progress.step,
            tokens=progress.tokens,
            data=self.task.checksums,
            versions=machine.versions(),
            source=source_hash(),
            code=user_code_hashes(self.config),
            config=without_place(self.config),
            error=error,
            notes=notes,
            measured={
                "seconds": seconds,
                "throughput": progress.tokens / seconds if seconds else None,
                "peak_memory_bytes": machine.peak_memory(self.device),
                "device": machine.device_name(self.device),
                "threads": torch.get_num_threads(),
                "compiled": sorted(compiled),
                **({"cuda_graph": True} if self.captures_steps else {}),
                **({"seeds_together": together} if together > 1 else {}),
                "recipe": self.config["recipe"].get("source"),
                "host": machine.host(),
                "git": machine.git_commit(),
                "started": self.started.isoformat(timespec="seconds"),
                "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            },
        )


@contextmanager
def trackers(config: Config, write: Callable[[str], None]) -> Iterator[Observer]:
    """Open the trackers of a config as one observer; `write` receives their errors."""

    def say(line: str) -> None:
        write(line)
        print(line, file=sys.stderr)

    nodes = config["tracker"]
    watching = Observers(*(Guarded(name, partial(build, name, nodes), say) for name in nodes))
    try:
        yield watching
    finally:
        watching.close()


def build_task(config: Config, trainer: Trainer) -> Task:
    """Return the task of a config, with its data on the CPU."""
    task: Task = build(
        "task",
        config,
        batch_size=trainer.batch_size,
        seed=config["seed"],
        data_dir=config["data_dir"],
    )
    return task


def build_optimizer(config: Config, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimizer of a config, fused if torch has a fused version.

    For a TCN of 70K parameters on a CPU an update then takes 0.2 ms, not 1.2, of a step's 25 ms.
    """
    if "fused" not in config["optimizer"]:
        with suppress(ConfigError):
            return build("optimizer", config, parameters, fused=True)
    return build("optimizer", config, parameters)


def build_model(config: Config, task: Task) -> nn.Module:
    """Return the model of a config, with initial weights drawn from the seed."""
    machine.seed_everything(config["seed"])
    model: nn.Module = build("model", config, task.spec)
    return model
