"""One experiment: a configuration in, a record out. The public Python API.

from seqbench.configuration import compose
from seqbench.experiment import run

record = run(compose(["model=tcn", "task=adding", "budget=quick"]))
print(record.score)
"""

import traceback
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import torch
from torch import nn

from seqbench import machine
from seqbench.configuration import Config, build
from seqbench.errors import ConfigError, RunError, SeqbenchError
from seqbench.interruption import signals
from seqbench.runs.identity import source_hash, without_place
from seqbench.runs.log import LineLog
from seqbench.runs.observer import Observer, Observers
from seqbench.runs.record import Record, Score
from seqbench.runs.run import EventLog, Run
from seqbench.tasks.task import Task
from seqbench.training import checkpoint
from seqbench.training.schedules import Schedule
from seqbench.training.state import Progress, load_weights
from seqbench.training.trainer import Diverged, Interrupted, Trainer


def run(
    config: Config,
    observer: Observer | None = None,
    *,
    force: bool = False,
    retry: bool = False,
) -> Record:
    """Train and test what a configuration describes; what is done already is not done again.

    An unfinished run goes on from its last checkpoint.

    Args:
        config: checked, as `configuration.compose` gives it.
        observer: is told what happens.
        force: run a finished run again, from the start.
        retry: run a failed or diverged run again, from the start.

    Returns:
        The record; its status may be `diverged`.

    Raises:
        ConfigError: something in the configuration cannot be built.
        DataError: the task's data cannot be had.
        Interrupted: a signal asked the run to stop; a checkpoint was written.
        RunError: another process holds the run, its folder cannot be written, or it failed.
    """
    observer = observer or Observer()
    found = Run.of(config)
    record = found.record
    if record is not None and not force and not (retry and record.status != "completed"):
        observer.finished(record)
        return record
    with found.held(), signals() as interrupted:
        if record is not None:
            found.start_over()
        with found.log() as write:
            observers = Observers(LineLog(write), observer)
            return Attempt(config, found, observers).go(interrupted)


class Attempt:
    """One attempt at a run: builds its parts, trains, tests, and writes the record."""

    def __init__(self, config: Config, run: Run, observer: Observer) -> None:
        self.config = config
        self.run = run
        self.observer = observer
        self.started = datetime.now(timezone.utc)
        self.resumed = self.load_checkpoint()
        self.device = machine.prepare(config, self.resumed[1]["threads"] if self.resumed else None)
        # Data first: it is what most often cannot be had.
        self.trainer: Trainer = build("trainer", config)
        self.task = build_task(config, self.trainer)
        self.model = build_model(config, self.task)
        self.task.to(self.device)
        self.model.to(self.device)
        trainable = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer: torch.optim.Optimizer = build("optimizer", config, trainable)
        self.schedule: Schedule = build("schedule", config)
        self.parameters = sum(p.numel() for p in trainable)
        if not trainable:
            raise ConfigError("the model has no parameters to train")

    @property
    def length(self) -> int:
        """The size of the task as its paper counts it (T of copy memory is not all it reads)."""
        return int(self.config["task"].get("length", self.task.spec.length))

    def load_checkpoint(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """The last checkpoint of an unfinished run."""
        path = self.run.checkpoints / "last.safetensors"
        return checkpoint.load(path) if path.exists() else None

    def go(self, interrupted: Callable[[], bool]) -> Record:
        """Train, test, and write the record."""
        offset = self.resumed[1]["events_offset"] if self.resumed else 0
        step = self.resumed[1]["progress"]["step"] if self.resumed else 0
        self.run.write_config(self.config)
        self.run.append_history("resumed" if self.resumed else "started", step=step)
        self.observer.started(self.facts(step))
        events = EventLog(self.run.events_path, offset)
        metrics: dict[str, dict[str, float | None]] = {}
        progress, status, error = Progress(), "completed", None
        try:
            progress = self.trainer.fit(
                self.model,
                self.task,
                self.optimizer,
                self.schedule,
                events,
                self.run.checkpoints,
                self.observer,
                interrupted,
                self.resumed,
            )
            metrics = self.test()
        except Interrupted as stop:
            self.run.append_history("interrupted", reason=str(stop))
            raise
        except Diverged as divergence:
            status, error = "diverged", str(divergence)
        except SeqbenchError:
            raise
        except Exception as failure:
            status, error = "failed", f"{type(failure).__name__}: {failure}".split("\n")[0]
            with self.run.log_path.open("a", encoding="utf-8") as log:
                log.write(traceback.format_exc())
        finally:
            events.close()
        record = self.record(status, error, metrics, progress)
        self.run.finish(record)
        self.run.append_history(status, step=progress.step)
        self.observer.finished(record)
        if status == "failed":
            raise RunError(f"run {self.run.run_id} failed: {error} (see {self.run.log_path})")
        return record

    def test(self) -> dict[str, dict[str, float | None]]:
        """Validation and test scores of the weights that validation chose; test is read here."""
        tensors, facts = checkpoint.load(self.run.checkpoints / "best.safetensors")
        load_weights(self.model, tensors)
        self.model.to(self.device)
        test = self.trainer.evaluate(self.model, self.task, "test")
        return {"valid": dict(facts["metrics"]), "test": dict(test)}

    def facts(self, step: int) -> dict[str, Any]:
        """What a person wants to know before training."""
        return {
            "run_id": self.run.run_id,
            "folder": self.run.folder,
            "config": self.config,
            "primary": self.task.primary,
            "baseline": self.task.baseline,
            "optimum": self.task.optimum,
            "length": self.length,
            "sequence": self.task.spec.length,
            "notes": self.task.notes,
            "parameters": self.parameters,
            "device": machine.device_name(self.device),
            "step": step,
            "total_steps": self.trainer.total_steps(self.task),
            "receptive_field": getattr(self.model, "receptive_field", None),
        }

    def record(
        self,
        status: Any,
        error: str | None,
        metrics: dict[str, dict[str, float | None]],
        progress: Progress,
    ) -> Record:
        """All that is kept of the run."""
        primary = self.task.primary
        value = metrics.get("test", {}).get(primary.metric)
        score = None
        if value is not None:
            score = Score(
                metric=primary.metric, split="test", value=value, direction=primary.direction
            )
        notes = dict(self.task.notes)
        if score is not None and primary.solved is not None:
            notes["solved"] = int(primary.is_solved(value))  # type: ignore[arg-type]
        seconds = progress.seconds
        return Record(
            run_id=self.run.run_id,
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
            config=without_place(self.config),
            error=error,
            notes=notes,
            measured={
                "seconds": seconds,
                "throughput": progress.tokens / seconds if seconds else None,
                "peak_memory_bytes": machine.peak_memory(self.device),
                "device": machine.device_name(self.device),
                "threads": torch.get_num_threads(),
                "host": machine.host(),
                "git": machine.git_commit(),
                "started": self.started.isoformat(timespec="seconds"),
                "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            },
        )


def build_task(config: Config, trainer: Trainer) -> Task:
    """The task of a configuration, its data on the CPU."""
    task: Task = build(
        "task",
        config,
        batch_size=trainer.batch_size,
        seed=config["seed"],
        data_dir=config["data_dir"],
    )
    return task


def build_model(config: Config, task: Task) -> nn.Module:
    """The model of a configuration, with the initial weights that its seed gives."""
    machine.seed_everything(config["seed"])
    model: nn.Module = build("model", config, task.spec)
    return model
