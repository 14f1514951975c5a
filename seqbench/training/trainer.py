"""The training loop.

`fit` takes a batch, calls `train_step`, and then `after_step`, which logs, evaluates, saves a
checkpoint and stops where that is due. `seqbench.training.together` trains several seeds with the
same two, `seqbench.training.graph` wraps a step so that a GPU runs it as a CUDA graph.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from seqbench.errors import ConfigError, Diverged, Interrupted
from seqbench.models.sequence_model import SequenceModel
from seqbench.tasks.task import Batch, Split, Task
from seqbench.training import checkpoint
from seqbench.training.accumulation import check_accumulation, never_empty, share
from seqbench.training.carried import Carried, joined, rows
from seqbench.training.prediction import predict
from seqbench.training.schedules import Plateau, Schedule, set_rates
from seqbench.training.state import Progress, TrainingState
from seqbench.training.step import Step, StepResult, train_step
from seqbench.training.training import Training

Precision = Literal["fp32", "bf16", "fp16"]
# Receives the outputs of a batch in an evaluation, see `Trainer.evaluate`.
Observe = Callable[[Tensor, Batch, Batch], None]
Decay = Literal["all", "matrices"]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def ignore(outputs: Tensor, batch: Batch, given: Batch) -> None:
    """Observe nothing."""


class Trainer:
    """The training of one model on one task.

    Args:
        steps: optimizer steps; `None` if `epochs` is given; 0 for a compressed run only.
        epochs: passes over the training data; `None` if `steps` is given.
        batch_size: sequences in a batch, over all micro-batches.
        accumulate: micro-batches that a batch is split into, to save memory.
        clip: largest gradient norm, applied after backward; `None` for no clipping.
        precision: `fp32`, or mixed precision in `bf16` or `fp16`.
        eval_every: steps between evaluations on validation; `epoch`: after each pass over the
            training data; `None`: twenty in a run.
        checkpoint_every: steps between checkpoints; `None`: at each evaluation.
        log_every: steps between log events with the loss.
        stop_when_solved: end when the validation score reaches the task's threshold.
        deterministic: use deterministic algorithms only: a CUDA run repeats bit for bit.
        compile: compile the model with torch.compile, which seldom pays for small models.
        graph: on a GPU, capture the step as a CUDA graph (see `seqbench.training.graph`).
        patience: end after this many evaluations on validation without a better score; `None`:
            train all steps.
        decay: the parameters to which the optimizer's `weight_decay` applies: `all`, or `matrices`,
            which spares biases, norms and embeddings.
        watch: the split that is evaluated during training. `valid` selects the weights, and test is
            read once, with those. `test`, once an epoch, selects nothing: the last weights stay.

    Raises:
        ConfigError: if a number is out of range, or two options exclude each other.
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
        patience: int | None = None,
        decay: Decay = "all",
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
            "patience": patience,
        }.items():
            if isinstance(value, int | float) and value <= 0 and (name, value) != ("steps", 0):
                raise ConfigError(f"trainer.{name} must be positive, not {value}")
        if batch_size % accumulate:
            raise ConfigError(
                f"trainer.batch_size={batch_size} cannot be cut into "
                f"trainer.accumulate={accumulate} equal parts"
            )
        if graph and (compile or precision == "fp16"):
            other = "trainer.compile" if compile else "trainer.precision=fp16"
            raise ConfigError(f"trainer.graph does not go together with {other}")
        if watch == "test" and (stop_when_solved or patience is not None):
            name = "stop_when_solved" if stop_when_solved else "patience"
            raise ConfigError(f"trainer.{name} would let test decide: trainer.watch=valid")
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
        self.patience = patience
        self.decay = decay

    def total_steps(self, task: Task) -> int:
        """Return the optimizer steps of the whole run."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(1, round(self.epochs * task.steps_per_epoch))

    def begin(
        self, model: SequenceModel, optimizer: torch.optim.Optimizer, schedule: Schedule
    ) -> TrainingState:
        """Return the state before the first step.

        Args:
            model: on the device to train on, with its initial weights.
            optimizer: of the model's parameters.
            schedule: multiplies the optimizer's learning rates.

        Raises:
            ConfigError: if the schedule would adapt to the test split.
        """
        if self.watch == "test" and isinstance(schedule, Plateau):
            raise ConfigError("schedule=plateau would let test decide: trainer.watch=valid")
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        device = next(model.parameters()).device
        scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")
        return TrainingState(model, optimizer, schedule, scaler)

    def fit(
        self,
        training: Training,
        interrupted: Callable[[], int],
        wrap: Callable[[torch.optim.Optimizer, Step], Step] = lambda optimizer, step: step,
    ) -> None:
        """Train until the last step, or until `stop_when_solved` or `patience` ends it.

        Afterwards `best.safetensors` of the folder has the weights with the best validation score,
        or the last ones if test is watched.

        Args:
            training: with the state of `begin` or of a checkpoint; it is changed in place.
            interrupted: returns the number of the signal that asks the run to stop, or 0.
            wrap: replaces the training step, given its optimizer, by one with the same results.

        Raises:
            Diverged: if loss, gradient or a score is not finite.
            Interrupted: if a signal asked the run to stop; a checkpoint was written.
        """
        state, task, progress = training.state, training.task, training.state.progress
        total = self.total_steps(task)
        forward: SequenceModel = torch.compile(state.model) if self.compile else state.model  # type: ignore[assignment]
        state.model.train()
        started = time.perf_counter() - progress.seconds

        def seconds() -> float:
            return time.perf_counter() - started

        def step_on(batches: Sequence[Batch], carried: Carried) -> StepResult:
            return self.train_step(forward, state, task, batches[0], carried)

        if self.accumulate > 1 and progress.step < total:
            # Of two micro-batches, if possible: a whole batch may not fit into memory.
            pairs = self.accumulate // 2 if self.accumulate % 2 == 0 else 1
            batch = task.train_batch(progress.step).split(pairs)[0]
            check_accumulation(task, batch, self.accumulate // pairs)
        step = wrap(state.optimizer, step_on)
        while progress.step < total and not self.is_over(progress):
            set_rates(state.optimizer, state.schedule.factor(progress.step, total))
            batch = task.train_batch(progress.step)
            result = step([batch], None if batch.fresh else state.carried)
            state.carried = result.carried
            progress.step += 1
            progress.tokens += result.tokens
            self.after_step(training, forward, result, seconds, interrupted())

    def is_over(self, progress: Progress) -> bool:
        """Return True if validation scores end the training before its last step."""
        solved = self.stop_when_solved and progress.solved
        return solved or (self.patience is not None and progress.unimproved >= self.patience)

    def train_step(
        self, model: SequenceModel, state: TrainingState, task: Task, batch: Batch, carried: Carried
    ) -> StepResult:
        """Update the weights with the gradient of one batch.

        Args:
            model: calls `state.model`.
            state: weights and optimizer are changed in place.
            task: gives the loss.
            batch: on the model's device.
            carried: the model's state before the batch, or `None`.
        """
        clip = None
        if self.clip is not None:
            parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
            clip = partial(nn.utils.clip_grad_norm_, parameters, self.clip)
        (loss, tokens, after), norm = train_step(
            state.optimizer,
            state.scaler,
            lambda: self.backward(model, task, batch, carried, state.scaler),
            clip,
        )
        return StepResult(loss, norm, tokens, after)

    def after_step(
        self,
        training: Training,
        forward: SequenceModel,
        result: StepResult,
        seconds: Callable[[], float],
        signal: int,
    ) -> None:
        """Log, evaluate, save a checkpoint and stop, where that is due.

        Args:
            training: whose step is done.
            forward: calls its model.
            result: of the step.
            seconds: returns the time spent in training so far.
            signal: number of the signal that asks the run to stop, or 0.

        Raises:
            Diverged: if loss, gradient or a score is not finite.
            Interrupted: if a signal asked the run to stop.
        """
        step, total = training.state.progress.step, self.total_steps(training.task)
        eval_every = self.steps_between_evaluations(training.task)
        evaluates = step % eval_every == 0 or step == total
        saves = step % (self.checkpoint_every or eval_every) == 0 or step == total
        stops = bool(signal) and step < total
        if evaluates or step % self.log_every == 0:
            self.log(training, result)
        if evaluates:
            self.evaluate_and_keep_best(training, forward)
        training.state.progress.seconds = seconds()
        ends = self.is_over(training.state.progress)
        saved = (saves or stops or ends) and training.save()
        if stops:
            kept = "a checkpoint was written, rerun the same command without --force to resume"
            lost = "no checkpoint was written, for the weights are not finite"
            raise Interrupted(
                f"interrupted at step {step} of {total}; {kept if saved else lost}", signal, step
            )

    def steps_between_evaluations(self, task: Task) -> int:
        """Return `eval_every` in steps."""
        usual = max(1, self.total_steps(task) // 20)
        every = self.eval_every or (usual if self.watch == "valid" else "epoch")
        return task.steps_per_epoch if every == "epoch" else every

    def log(self, training: Training, result: StepResult) -> None:
        """Record loss, learning rate and gradient norm; this waits for the device.

        Raises:
            Diverged: if one of them is not finite.
        """
        state, step = training.state, training.state.progress.step
        first = state.optimizer.param_groups[-1]["initial_lr"]
        rate = first * state.schedule.factor(step - 1, self.total_steps(training.task))
        event = {"step": step, "split": "train", "loss": result.loss.item(), "lr": rate}
        if result.grad_norm is not None:
            event["grad_norm"] = result.grad_norm.item()
        training.record(event)
        if self.precision != "fp16":  # its scaler skips steps whose gradients overflow
            check_finite("grad_norm", event.get("grad_norm", 0.0), state.progress)
            check_finite("loss", event["loss"], state.progress)

    def evaluate_and_keep_best(self, training: Training, forward: SequenceModel) -> None:
        """Evaluate the watched split, and keep the weights if they are the best so far.

        Raises:
            Diverged: if the score is not finite.
        """
        state, task, progress = training.state, training.task, training.state.progress
        with state.as_stored(training.kind) as stored:
            metrics = self.evaluate(forward, task, self.watch)
        training.record({"step": progress.step, "split": self.watch, **metrics})
        value = metrics[task.primary.metric]
        check_finite(f"{self.watch} {task.primary.metric}", value, progress)
        improved = progress.best is None or task.primary.better(value, progress.best)
        state.schedule.observe(improved)
        progress.solved = task.primary.is_solved(value)
        progress.unimproved = 0 if improved else progress.unimproved + 1
        if task.primary.replaces(value, progress.best) or self.watch == "test":
            progress.best, progress.best_step = value, progress.step
            facts = {
                "step": progress.step,
                "metrics": metrics,
                "spec": task.spec.to_json(),
                "preprocessing": task.preprocessing(),
            }
            checkpoint.save(training.folder / checkpoint.BEST, stored, facts)

    def backward(
        self,
        model: SequenceModel,
        task: Task,
        batch: Batch,
        carried: Carried,
        scaler: torch.amp.GradScaler,
    ) -> tuple[Tensor, int, Carried]:
        """Add the gradient of a batch to the parameters, one micro-batch after the other.

        Returns:
            The mean loss, the time steps that the model read, and its state after the batch.
        """
        total = torch.zeros((), device=batch.inputs.device)
        tokens, states = 0, []
        parts = batch.split(self.accumulate)
        for i, part in enumerate(parts):
            with self.autocast(batch.inputs.device):
                outputs, part, state = predict(model, part, rows(carried, i, len(parts)), task.spec)
                weight = share(part, batch)
                part = part if len(parts) == 1 else never_empty(part)
                loss = task.loss(outputs, part) * weight
            scaler.scale(loss).backward()
            total += loss.detach()
            tokens += part.inputs.shape[:2].numel()
            states.append(state)
        return total, tokens, joined(states)

    def autocast(self, device: torch.device) -> Any:
        """Return the context for forward passes on a device, in the precision of the trainer."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(device.type, DTYPES[self.precision])

    @torch.no_grad()
    def evaluate(
        self, model: SequenceModel, task: Task, split: Split, observe: Observe = ignore
    ) -> dict[str, float]:
        """Return the task's metrics over all of a split, without dropout.

        Args:
            model: on the device of the task's data.
            task: gives batches and metrics.
            split: what to score.
            observe: called for each batch with the outputs, with the batch whose targets match
                them, and with the batch as the task gave it.
        """
        sums: dict[str, Tensor] = {}
        counts: dict[str, int] = {}
        carried: Carried = None
        was_training = model.training
        model.eval()
        for given in task.eval_batches(split):
            if given.fresh:
                carried = None
            with self.autocast(given.inputs.device):
                outputs, batch, carried = predict(model, given, carried, task.spec)
            observe(outputs, batch, given)
            for name, (value, count) in task.metrics(outputs, batch).items():
                sums[name] = sums.get(name, 0) + value.double()
                counts[name] = counts.get(name, 0) + count
        model.train(was_training)
        means = {name: (value / counts[name]).item() for name, value in sums.items()}
        return task.metrics_of(means)


def check_finite(name: str, value: float, progress: Progress) -> None:
    """Raise `Diverged` if a value is not finite."""
    if not abs(value) < float("inf"):
        best = progress.best_step
        kept = f"; the best weights so far, of step {best}, are kept" if best else ""
        raise Diverged(
            f"diverged: {name} is {value} at step {progress.step}; a lower optimizer.lr, a longer "
            f"schedule.warmup or a smaller trainer.clip may help{kept}"
        )
