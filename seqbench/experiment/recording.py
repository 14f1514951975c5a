"""Record a run in its folder: config, history, events, log, trackers, test, record."""

import os
import sys
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import partial
from statistics import fmean
from typing import Any, Literal

import torch

from seqbench import kernels, machine
from seqbench.config import Config
from seqbench.config.build import build
from seqbench.config.compression import method
from seqbench.config.schema import defaults_of
from seqbench.errors import (
    Diverged,
    Interrupted,
    RunError,
    SeqbenchError,
    is_out_of_memory,
    typed_line,
)
from seqbench.experiment.build import Experiment
from seqbench.experiment.compression import zeros
from seqbench.experiment.continuation import Origin, lineage
from seqbench.experiment.latency import compared_with_parent
from seqbench.runs.confusion import write_confusion
from seqbench.runs.events import EventLog, read_events
from seqbench.runs.forecasts import write_forecasts
from seqbench.runs.identity import user_code_hashes, without_environment
from seqbench.runs.log import LineLog
from seqbench.runs.observer import Observer, Observers
from seqbench.runs.record import Record, Score
from seqbench.runs.run import Run
from seqbench.runs.source_hash import source_hash
from seqbench.tasks.window_task import WindowTask
from seqbench.trackers.tracker import Guarded
from seqbench.training import checkpoint
from seqbench.training.forecast_rows import ForecastSample
from seqbench.training.predictions import ConfusionCount, has_confusion
from seqbench.training.state import load_weights
from seqbench.training.trainer import check_finite
from seqbench.training.training import Training

Metrics = dict[str, dict[str, float | None]]  # split -> metric -> value

# With trainer.watch=test the score is the mean of the last test results; its split says so.
TESTS_IN_MEAN, TEST_MEAN = 3, "test_mean"


@contextmanager
def observed(config: Config, folder: Run, observer: Observer, *, force: bool) -> Iterator[Observer]:
    """Open the log and the trackers of a run that this process holds, beside `observer`.

    A finished attempt, or with `force` any, is deleted first.
    """
    if force or folder.record is not None:
        folder.start_over()
    with folder.log() as write, trackers(config, write) as watching:
        yield Observers(LineLog(write), observer, watching)


@contextmanager
def trackers(config: Config, write: Callable[[str], None]) -> Iterator[Observer]:
    """Open the trackers of a config as one observer; `write` receives their errors."""

    def report(line: str) -> None:
        write(line)
        print(line, file=sys.stderr)

    nodes = config["tracker"]
    watching = Observers(*(Guarded(name, partial(build, name, nodes), report) for name in nodes))
    try:
        yield watching
    finally:
        watching.close()


class Recording:
    """A run being trained and written to its folder, from the first event to the record.

    The constructor restores the last checkpoint, if there is one, and announces the training. A
    run that continues another one begins with the other's files.

    Args:
        experiment: its state is changed.
        folder: the run's folder, held by this process.
        observer: receives what happens.
        together: number of seeds that are announced to be trained as one model.
        origin: of a run that continues another one; `None` if it has a checkpoint.

    Attributes:
        training: for `Trainer.fit`.
    """

    def __init__(
        self,
        experiment: Experiment,
        folder: Run,
        observer: Observer,
        together: int = 1,
        origin: Origin | None = None,
    ) -> None:
        self.experiment = experiment
        self.folder = folder
        self.started = datetime.now(timezone.utc)
        task, state, trainer = experiment.task, experiment.state, experiment.trainer
        offset = 0
        saved, remark = checkpoint.load_last(folder.checkpoints)
        event, parent = "started" if saved is None else "resumed", None
        if saved is None and origin is not None:
            origin.write(folder)
            saved, parent = origin.last, experiment.config["continues"]
        if saved is not None:
            offset = state.restore(*saved)
        folder.write_config({k: v for k, v in experiment.config.items() if k != "tracker"})
        folder.append_history(
            event,
            step=state.progress.step,
            total_steps=trainer.total_steps(task),
            metric=task.primary.metric,
            direction=task.primary.direction,
            **({"continues": parent} if parent else {}),
        )
        if trainer.graph and not experiment.captures_steps:
            remark = "; ".join([*([remark] if remark else []), "trainer.graph is for a GPU"])
        initial = [] if experiment.initial is None else experiment.initial.lines()
        told = {"together": together, "remark": remark, "continues": parent, "initial": initial}
        observer.started(self.facts() | told)
        events = EventLog(folder.events_path, offset)
        compression = experiment.config.get("compress")
        kind = None if compression is None else compression.get("quantize", "fp32")
        self.training = Training(state, task, events, folder.checkpoints, observer, kind)

    def facts(self) -> dict[str, Any]:
        """Return what observers show before training."""
        experiment, task, state = self.experiment, self.experiment.task, self.experiment.state
        return {
            "config": experiment.config,
            "primary": task.primary,
            "baseline": task.baseline,
            "naive": task.naive,
            "optimum": task.optimum,
            "length": experiment.length,
            "sequence": task.spec.length,
            "notes": task.notes,
            "parameters": experiment.parameters,
            "device": machine.device_name(experiment.device),
            "step": state.progress.step,
            "best": state.progress.best,
            "total_steps": experiment.trainer.total_steps(task),
            "receptive_field": state.model.receptive_field,
        }

    def finish(
        self, fit: Callable[[], None], together: int = 1, compiled: Collection[str] = ()
    ) -> Record:
        """Call `fit`, test, and write the record.

        Args:
            fit: trains, or raises the error that ended the training.
            together: number of seeds that `fit` trains as one model.
            compiled: sources of kernels that ran before.

        Raises:
            Interrupted: if a signal stopped the run.
            SeqbenchError: if the machine failed, so that the run can be resumed.
        """
        folder, progress = self.folder, self.experiment.state.progress
        metrics: Metrics = {}
        status: Literal["completed", "diverged", "failed"] = "completed"
        error = None
        try:
            with kernels.recording() as used:
                fit()
                metrics = self.test()
        except Interrupted as stop:
            folder.append_history("interrupted", step=progress.step, reason=str(stop))
            raise
        except Diverged as divergence:
            status, error = "diverged", str(divergence)
        except (SeqbenchError, OSError):
            raise  # of the machine, not of the run, which can be resumed
        except Exception as failure:
            status, error = "failed", typed_line(failure)
            if is_out_of_memory(failure):
                error = f"out of memory on {self.experiment.device}: {self.smaller_parts()}"
            with folder.log_path.open("a", encoding="utf-8") as log:
                log.write(traceback.format_exc())
            if os.environ.get("SEQBENCH_TRACEBACK"):
                traceback.print_exc()
        finally:
            self.training.events.close()
        record = self.record(status, error, metrics, together, used.union(compiled))
        folder.finish(record)
        folder.append_history(status, step=progress.step)
        self.training.observer.finished(record)
        return record

    def test(self) -> Metrics:
        """Return the metrics of the weights with the best validation score; test is read here.

        With `trainer.watch=test` these are the last weights, and the score is the mean of the last
        results on test.
        """
        task, state, trainer = (
            self.experiment.task,
            self.experiment.state,
            self.experiment.trainer,
        )
        try:
            tensors, facts = checkpoint.load(self.folder.checkpoints / checkpoint.BEST)
        except RunError as error:
            raise RunError(f"{error}; --force starts the run again") from error
        load_weights(state.model, tensors)
        if trainer.watch == "test":
            events = [e for e in read_events(self.folder.events_path) if e["split"] == "test"]
            # A compressed run is scored before its first step, too.
            last = [e for e in events if e["step"]][-TESTS_IN_MEAN:] or events
            results = {k: [e[k] for e in last] for k in last[-1] if k not in ("step", "split")}
            # Values that were not finite are `None`.
            mean = {k: None if None in v else fmean(v) for k, v in results.items()}
            if has_confusion(task) or isinstance(task, WindowTask):
                self.evaluate_test()
            return {"test": {k: v[-1] for k, v in results.items()}, TEST_MEAN: mean}
        test = self.evaluate_test()
        metric = task.primary.metric
        check_finite(f"test {metric}", test[metric], state.progress)
        return {"valid": dict(facts["metrics"]), "test": dict(test)}

    def evaluate_test(self) -> dict[str, float]:
        """Return the metrics of the test split; keep its confusion matrix, or a few forecasts."""
        task, state = self.experiment.task, self.experiment.state
        evaluate = partial(self.experiment.trainer.evaluate, state.model, task, "test")
        if isinstance(task, WindowTask):
            sample = ForecastSample(task)
            metrics = evaluate(sample)
            write_forecasts(self.folder.forecasts_path, sample.windows())
            return metrics
        if not has_confusion(task):
            return evaluate()
        count = ConfusionCount(task)
        metrics = evaluate(count)
        if count.matrix is not None:
            write_confusion(self.folder.confusion_path, count.matrix)
        return metrics

    def smaller_parts(self) -> str:
        """Return what to try if a batch does not fit into memory."""
        size, parts = self.experiment.trainer.batch_size, self.experiment.trainer.accumulate
        more = next((n for n in range(parts + 1, size + 1) if size % n == 0), None)
        if more is None:
            return f"try a smaller model or task; trainer.batch_size={size} is in parts of one"
        return (
            f"at trainer.batch_size={size} try trainer.accumulate={more}, the same batch in "
            "smaller parts"
        )

    def record(
        self,
        status: Literal["completed", "diverged", "failed"],
        error: str | None,
        metrics: Metrics,
        together: int,
        compiled: Collection[str],
    ) -> Record:
        """Return the record of the run; `compiled` are the kernels' sources that it ran."""
        experiment, task = self.experiment, self.experiment.task
        config, progress = experiment.config, experiment.state.progress
        score = self.score(metrics)
        return Record(
            run_id=self.folder.run_id,
            status=status,
            task=config["choices"]["task"],
            model=config["choices"]["model"],
            seed=config["seed"],
            budget=config["budget"],
            protocol=config["protocol"],
            length=experiment.length,
            metrics=metrics,
            score=score,
            baseline=task.baseline,
            naive=dict(task.naive),
            optimum=task.optimum,
            parameters=experiment.parameters,
            steps=progress.step,
            tokens=progress.tokens,
            data=task.checksums,
            versions=machine.versions(),
            source=source_hash(config),
            code=user_code_hashes(config),
            config=without_environment(config),
            defaults=without_environment(defaults_of(config)),
            error=error,
            notes=self.notes(status, score),
            measured=self.measured(status, together, compiled),
        )

    def score(self, metrics: Metrics) -> Score | None:
        """Return the primary metric on test; `None` if it was not measured."""
        primary = self.experiment.task.primary
        split = TEST_MEAN if self.experiment.trainer.watch == "test" else "test"
        value = metrics.get(split, {}).get(primary.metric)
        if value is None:
            return None
        return Score(metric=primary.metric, split=split, value=value, direction=primary.direction)

    def notes(self, status: str, score: Score | None) -> dict[str, Any]:
        """Return the task's notes, and notes on parents, the score and compression."""
        experiment, primary = self.experiment, self.experiment.task.primary
        config, notes = experiment.config, dict(experiment.task.notes)
        if "continues" in config:
            notes["continues"] = lineage(self.folder, config)
        if experiment.trainer.watch == "test":
            notes["score"] = f"mean of the last results on test, {TESTS_IN_MEAN} at most"
        value = None if score is None else score.value
        if value is not None and primary.solved is not None:
            notes["solved"] = int(primary.is_solved(value))
        if status == "completed" and "compress" in config:
            notes["method"] = str(method(config))
            notes["nonzero"] = experiment.parameters - zeros(experiment.state.model)
        return notes

    def measured(self, status: str, together: int, compiled: Collection[str]) -> dict[str, Any]:
        """Return what depends on the machine and the time, not on the config alone."""
        experiment, progress = self.experiment, self.experiment.state.progress
        seconds = progress.seconds
        return {
            "seconds": seconds,
            "throughput": progress.tokens / seconds if seconds else None,
            "peak_memory_bytes": machine.peak_memory(experiment.device),
            "device": machine.device_name(experiment.device),
            "threads": torch.get_num_threads(),
            "compiled": sorted(compiled),
            **({"cuda_graph": True} if experiment.captures_steps else {}),
            **({"seeds_together": together} if together > 1 else {}),
            **self.size(status),
            "recipe": experiment.config["recipe"].get("source"),
            "host": machine.host(),
            "git": machine.git_commit(),
            "started": self.started.isoformat(timespec="seconds"),
            "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }

    def size(self, status: str) -> dict[str, Any]:
        """Return the bytes of the weights; of a compressed run also latencies."""
        experiment, best = self.experiment, self.folder.checkpoints / checkpoint.BEST
        if status != "completed" or not best.exists():
            return {}
        found = {"bytes": best.stat().st_size}
        if "compress" not in experiment.config:
            return found
        model, task = experiment.state.model, experiment.task
        return found | compared_with_parent(model, task, experiment.config)
