"""The training loop."""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from seqbench.errors import ConfigError, RunError
from seqbench.runs.observer import Observer
from seqbench.runs.run import EventLog
from seqbench.tasks.task import Batch, Split, Task
from seqbench.training import checkpoint
from seqbench.training.carried import Carried, joined, rows
from seqbench.training.graph import Graphs, Result, Step, can_capture, check_fused
from seqbench.training.prediction import predict
from seqbench.training.schedules import Plateau, Schedule, set_rates
from seqbench.training.state import Progress, TrainingState, weights

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Diverged(RunError):
    """The loss or a score is no longer a finite number."""


class Interrupted(RunError):
    """Somebody asked the run to stop; a checkpoint was written.

    Attributes:
        signal: the number of the signal that asked.
    """

    exit_code = 130
    signal = 0


@dataclass
class Training:
    """A training under way, and where it leaves its traces.

    Attributes:
        state: what it changes.
        task: on the model's device.
        events: receives the metrics.
        folder: receives the checkpoints.
        observer: is told of every event.
    """

    state: TrainingState
    task: Task
    events: EventLog
    folder: Path
    observer: Observer

    def record(self, event: dict[str, Any]) -> None:
        """Keep an event, and tell of it."""
        self.events.append(event)
        self.observer.event(event)


class Trainer:
    """Trains one model on one task.

    Args:
        steps: optimiser steps; or else
        epochs: passes over the training data.
        batch_size: sequences in a batch, all micro-batches together.
        accumulate: micro-batches that a batch is cut into, to save memory.
        clip: largest gradient norm, applied after backward; `None` for no clipping.
        precision: `fp32`, or mixed precision in `bf16` or `fp16`.
        eval_every: steps between evaluations on validation; `epoch` for one after each pass over
            the training data, `None` for twenty in a run.
        checkpoint_every: steps between checkpoints; `None` for one at each evaluation.
        log_every: steps between readings of the loss.
        stop_when_solved: end as soon as validation reaches the task's mark.
        deterministic: use deterministic algorithms only, so that a CUDA run can be repeated bit
            for bit.
        compile: hand the model to torch.compile. Seldom pays for models this small.
        graph: on a GPU, capture the step as a CUDA graph (see `seqbench.training.graph`).
        watch: the split that is evaluated during training. `valid` chooses the weights, and test is
            read once, with those. `test`, once an epoch, chooses nothing: the last weights stay.

    Raises:
        ConfigError: a number that cannot be.
    """

    def __init__(
        self,
        steps: int | None,
        epochs: float | None,
        batch_size: int,
        accumulate: int,
        clip: float | None,
        precision: Precision,
        eval_every: int | Literal["epoch"] | None,
        checkpoint_every: int | None,
        log_every: int,
        stop_when_solved: bool,
        deterministic: bool,
        compile: bool,
        watch: Literal["valid", "test"] = "valid",
        graph: bool = False,
    ) -> None:
        if (steps is None) == (epochs is None):
            raise ConfigError(
                "give one of trainer.steps and trainer.epochs, and leave the other null"
            )
        for name, value in {
            "steps": steps,
            "epochs": epochs,
            "batch_size": batch_size,
            "accumulate": accumulate,
            "clip": clip,
            "eval_every": eval_every,
            "checkpoint_every": checkpoint_every,
            "log_every": log_every,
        }.items():
            if isinstance(value, int | float) and value <= 0:
                raise ConfigError(f"trainer.{name} must be positive, not {value}")
        if batch_size % accumulate:
            raise ConfigError(
                f"trainer.batch_size={batch_size} cannot be cut into "
                f"trainer.accumulate={accumulate} equal parts"
            )
        if graph and (compile or precision == "fp16"):
            other = "trainer.compile" if compile else "trainer.precision=fp16"
            raise ConfigError(f"trainer.graph does not go together with {other}")
        if watch == "test" and stop_when_solved:
            raise ConfigError("trainer.stop_when_solved would let test decide: trainer.watch=valid")
        self.steps = steps
        self.epochs = epochs
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.clip = clip
        self.precision = precision
        self.eval_every = eval_every
        self.checkpoint_every = checkpoint_every
        self.log_every = log_every
        self.stop_when_solved = stop_when_solved
        self.deterministic = deterministic
        self.compile = compile
        self.watch = watch
        self.graph = graph

    def total_steps(self, task: Task) -> int:
        """Optimiser steps of the whole run."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(1, round(self.epochs * task.steps_per_epoch))

    def begin(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, schedule: Schedule
    ) -> TrainingState:
        """The state of a training that has not begun.

        Args:
            model: on the device to train on, with its initial weights.
            optimizer: of the model's parameters.
            schedule: multiplies the optimiser's learning rates.

        Raises:
            ConfigError: it would learn of test, or its optimiser cannot be captured.
        """
        if self.watch == "test" and isinstance(schedule, Plateau):
            raise ConfigError("schedule=plateau would let test decide: trainer.watch=valid")
        if self.graph:
            check_fused(optimizer)
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        device = next(model.parameters()).device
        scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")
        return TrainingState(model, optimizer, schedule, scaler)

    def fit(self, training: Training, interrupted: Callable[[], int]) -> None:
        """Train until the last step, or until the task is solved if that was asked for.

        The best weights by the task's primary metric on validation stand in
        `best.safetensors` of its folder afterwards; the last ones, if test is watched instead.

        Args:
            training: with the state as `begin` or a checkpoint gave it; it changes in place.
            interrupted: the signal by which somebody asked the run to stop; 0 if nobody did.

        Raises:
            Diverged: loss, gradient or a score is not finite.
            Interrupted: after a checkpoint was written, because `interrupted` said so.
        """
        state, task = training.state, training.task
        model, optimizer, scaler, progress = (
            state.model,
            state.optimizer,
            state.scaler,
            state.progress,
        )
        total = self.total_steps(task)
        parameters = [p for p in model.parameters() if p.requires_grad]
        forward: nn.Module = torch.compile(model) if self.compile else model  # type: ignore[assignment]
        model.train()
        started = time.perf_counter() - progress.seconds

        def seconds() -> float:
            return time.perf_counter() - started

        def take(
            batches: Sequence[Batch], carried: Carried
        ) -> tuple[Tensor, Tensor | None, int, Carried]:
            loss, read, after = self.backward(forward, task, batches[0], carried, scaler)
            norm = None
            if self.clip is not None:
                scaler.unscale_(optimizer)
                norm = nn.utils.clip_grad_norm_(parameters, self.clip)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            return loss, norm, read, after

        step = self.captured(take, optimizer, state.graphs)
        while progress.step < total and not (self.stop_when_solved and progress.solved):
            set_rates(optimizer, state.schedule.factor(progress.step, total))
            batch = task.train_batch(progress.step)
            carried = None if batch.fresh else state.carried
            loss, norm, read, state.carried = step([batch], carried)
            progress.step += 1
            progress.tokens += read
            self.account(training, forward, loss, norm, seconds, interrupted())

    def captures(self, device: torch.device) -> bool:
        """Whether a step on a device is captured as a CUDA graph."""
        return self.graph and can_capture(device)

    def captured(
        self, step: Step[Result], optimizer: torch.optim.Optimizer, graphs: Graphs
    ) -> Step[Result]:
        """A step as CUDA graphs, kept in `graphs`, where that was asked for and there is a GPU."""
        device = optimizer.param_groups[0]["params"][0].device
        return graphs.of(step, optimizer) if self.captures(device) else step

    def account(
        self,
        training: Training,
        forward: nn.Module,
        loss: Tensor,
        norm: Tensor | None,
        seconds: Callable[[], float],
        number: int,
    ) -> None:
        """After a step, log, evaluate, save and stop where that is due.

        Args:
            training: its step is done.
            forward: the model, as it is called.
            loss: of the step.
            norm: of its gradient before it was clipped, if it was.
            seconds: that the training took until now.
            number: the signal by which somebody asked the run to stop; 0 if nobody did.

        Raises:
            Diverged: loss, gradient or a score is not finite.
            Interrupted: after a checkpoint was written.
        """
        state, task, folder = training.state, training.task, training.folder
        model, progress = state.model, state.progress
        step, total = progress.step, self.total_steps(task)
        usual = max(1, total // 20)
        eval_every = self.eval_every or (usual if self.watch == "valid" else "epoch")
        if eval_every == "epoch":
            eval_every = task.steps_per_epoch
        evaluates = step % eval_every == 0 or step == total
        saves = step % (self.checkpoint_every or eval_every) == 0 or step == total
        stops = bool(number) and step < total
        if step % self.log_every == 0 or evaluates:
            first = state.optimizer.param_groups[-1]["initial_lr"]
            rate = first * state.schedule.factor(step - 1, total)
            event = {"step": step, "split": "train", "loss": loss.item(), "lr": rate}
            if norm is not None:
                event["grad_norm"] = norm.item()
            training.record(event)
            # Here alone the loop waits for the device, and where it evaluates or saves.
            if self.precision != "fp16":  # there the scaler skips overflowing steps, by design
                check_finite("grad_norm", event.get("grad_norm", 0.0), progress)
                check_finite("loss", event["loss"], progress)
        if evaluates:
            metrics = self.evaluate(forward, task, self.watch)
            training.record({"step": step, "split": self.watch, **metrics})
            value = metrics[task.primary.metric]
            check_finite(f"{self.watch} {task.primary.metric}", value, progress)
            improved = progress.best is None or task.primary.better(value, progress.best)
            state.schedule.observe(improved)
            progress.solved = task.primary.is_solved(value)
            if improved or self.watch == "test":
                progress.best, progress.best_step = value, step
                best = {"step": step, "metrics": metrics}
                checkpoint.save(folder / checkpoint.BEST, weights(model), best)
        progress.seconds = seconds()
        # Weights that are not finite end the run where it next reads the loss, however often it was
        # interrupted before; until then the last good checkpoint stays.
        keeps = (saves or stops) and all(bool(p.isfinite().all()) for p in model.parameters())
        if keeps:
            training.events.sync()  # a checkpoint counts on the events before it
            checkpoint.keep_previous(folder)
            state.save(folder / checkpoint.LAST, training.events.offset)
        if stops:
            kept = "a checkpoint was written, from which the same command, without --force, goes on"
            lost = "no checkpoint was written, for the weights are not finite"
            stop = Interrupted(f"interrupted at step {step} of {total}; {kept if keeps else lost}")
            stop.signal = number
            raise stop

    def backward(
        self,
        model: nn.Module,
        task: Task,
        batch: Batch,
        carried: Carried,
        scaler: torch.amp.GradScaler,
    ) -> tuple[Tensor, int, Carried]:
        """Add the gradients of a batch, in micro-batches.

        Returns:
            The mean loss, how many time steps the model read, and the state to carry.
        """
        device, read = batch.inputs.device, 0
        total = torch.zeros((), device=device)
        states: list[Carried] = []
        parts = batch.split(self.accumulate)
        for i, part in enumerate(parts):
            with self.autocast(device):
                outputs, part, state = predict(model, part, rows(carried, i, len(parts)), task.spec)
                loss = task.loss(outputs, part) * share(part, batch)
            scaler.scale(loss).backward()
            total += loss.detach()
            read += part.inputs.shape[0] * part.inputs.shape[1]
            states.append(state)
        return total, read, joined(states)

    def autocast(self, device: torch.device) -> Any:
        """The context in which a forward pass runs."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(device.type, DTYPES[self.precision])

    @torch.no_grad()
    def evaluate(self, model: nn.Module, task: Task, split: Split) -> dict[str, float]:
        """The task's metrics over all of a split, dropout off."""
        sums: dict[str, Tensor] = {}
        counts: dict[str, int] = {}
        carried: Carried = None
        was_training = model.training
        model.eval()
        for batch in task.eval_batches(split):
            if batch.fresh:
                carried = None
            with self.autocast(batch.inputs.device):
                outputs, batch, carried = predict(model, batch, carried, task.spec)
            for name, (value, count) in task.metrics(outputs, batch).items():
                sums[name] = sums.get(name, 0) + value.double()
                counts[name] = counts.get(name, 0) + count
        model.train(was_training)
        return {name: (value / counts[name]).item() for name, value in sums.items()}


def share(part: Batch, batch: Batch) -> Tensor | float:
    """The share of a batch's scored positions that a micro-batch holds."""
    rows = len(part.inputs) / len(batch.inputs)
    if rows == 1 or part.scored is None or batch.scored is None:
        return rows
    return part.scored.sum() / batch.scored.sum()


def check_finite(name: str, value: float, progress: Progress) -> None:
    """Raise `Diverged` if a number is not finite."""
    if not abs(value) < float("inf"):
        best = progress.best_step
        kept = f"; the best weights so far, of step {best}, are kept" if best else ""
        raise Diverged(
            f"diverged: {name} is {value} at step {progress.step}; a lower optimizer.lr, a longer "
            f"schedule.warmup or a smaller trainer.clip may help{kept}"
        )
