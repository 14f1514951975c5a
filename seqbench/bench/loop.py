"""Run training steps without logging, evaluations and checkpoints, and time them."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import register_multi_grad_hook
from torch.optim import Optimizer

from seqbench.experiment.build import Experiment
from seqbench.models.sequence_model import SequenceModel
from seqbench.tasks.task import Batch, Task
from seqbench.training.carried import Carried
from seqbench.training.schedules import set_rates
from seqbench.training.state import TrainingState
from seqbench.training.step import Step, StepResult
from seqbench.training.trainer import Trainer

PARTS = ("data", "forward", "backward", "optimizer", "other")


class Clock:
    """Record the times at which steps end: on a GPU by its own clock, so that no step waits.

    Args:
        device: the device of the steps.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.times: list[float] = []
        self.events: list[torch.cuda.Event] = []
        self.tick()

    def tick(self) -> None:
        """Record the time."""
        if self.device.type == "cuda":
            self.events.append(torch.cuda.Event(enable_timing=True))
            self.events[-1].record()
        else:
            self.times.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Return the seconds between consecutive ticks."""
        wait_for(self.device)
        if self.events:
            first = self.events[0]
            self.times = [first.elapsed_time(event) / 1000 for event in self.events]
        return [end - begin for begin, end in zip(self.times, self.times[1:], strict=False)]


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has finished its queued work; return at once for a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Loop:
    """A loop of training steps. After the last step of the run it begins with the first again.

    Args:
        state: model, optimizer and schedule, as `Trainer.begin` returns it.
        task: on the model's device.
        trainer: takes the steps.
        wrap: replaces the training step, given its optimizer, by one with the same results.
    """

    def __init__(
        self,
        state: TrainingState,
        task: Task,
        trainer: Trainer,
        wrap: Callable[[Optimizer, Step], Step] = lambda optimizer, step: step,
    ) -> None:
        self.state = state
        self.task = task
        self.trainer = trainer
        self.device = next(state.model.parameters()).device
        state.model.train()
        model: Any = torch.compile(state.model) if trainer.compile else state.model
        self.train_step = wrap(state.optimizer, partial(self.update, model))

    @classmethod
    def of(cls, experiment: Experiment) -> "Loop":
        """Return the loop of an experiment, with its CUDA graphs if they are configured."""
        return cls(experiment.state, experiment.task, experiment.trainer, experiment.wrap_step)

    def run_steps(self, count: int) -> list[float]:
        """Run `count` training steps, and return the seconds of each."""
        clock = Clock(self.device)
        for _ in range(count):
            self.step()
            clock.tick()
        return clock.seconds()

    def step(self) -> StepResult:
        """Run one training step."""
        return self.advance(self.train_step, self.next_batch())

    def plain_step(self) -> StepResult:
        """Run one training step without torch.compile and CUDA graphs, which hide its parts."""
        return self.advance(partial(self.update, self.state.model), self.next_batch())

    def next_batch(self) -> Batch:
        """Return the batch of the next step."""
        return self.task.train_batch(self.state.progress.step % self.trainer.total_steps(self.task))

    def advance(self, train_step: Step, batch: Batch) -> StepResult:
        """Run one training step on a batch, with the learning rates of its position in the run."""
        state, total = self.state, self.trainer.total_steps(self.task)
        set_rates(state.optimizer, state.schedule.factor(state.progress.step % total, total))
        result = train_step([batch], None if batch.fresh else state.carried)
        state.carried = result.carried
        state.progress.step += 1
        state.progress.tokens += result.tokens
        return result

    def update(
        self, model: SequenceModel, batches: Sequence[Batch], carried: Carried
    ) -> StepResult:
        """Call `Trainer.train_step`; `model` calls the model of the state."""
        return self.trainer.train_step(model, self.state, self.task, batches[0], carried)


def time_split(loop: Loop, count: int) -> dict[str, float]:
    """Return the share of each part of a training step, by name; the shares sum to one.

    These steps are separate from the timed ones, since each part ends with a synchronization of the
    GPU. They run without torch.compile and CUDA graphs. `forward` ends with the gradient of the
    loss for the outputs, `backward` with the last gradient of a parameter; `optimizer` includes
    clipping.

    Args:
        loop: is advanced by `count` steps.
        count: steps to run.
    """
    model = loop.state.model
    seconds = dict.fromkeys(PARTS, 0.0)
    last = time.perf_counter()

    def end(part: str) -> None:
        nonlocal last
        wait_for(loop.device)
        now = time.perf_counter()
        seconds[part] += now - last
        last = now

    def end_forward(module: nn.Module, inputs: Any, result: Any) -> None:
        outputs: Tensor = result[0] if isinstance(result, tuple) else result
        outputs.register_hook(lambda gradient: end("forward"))

    with ExitStack() as stack:
        hooks = (
            model.register_forward_pre_hook(lambda module, inputs: end("other")),
            model.register_forward_hook(end_forward),
            register_multi_grad_hook(
                [p for p in model.parameters() if p.requires_grad], lambda grads: end("backward")
            ),
        )
        for hook in hooks:
            stack.callback(hook.remove)
        for _ in range(count):
            batch = loop.next_batch()
            end("data")
            loop.advance(partial(loop.update, model), batch)
            end("optimizer")
    total = sum(seconds.values())
    return {part: time / total for part, time in seconds.items()}
