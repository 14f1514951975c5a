"""Measure which share of a training step's time each of its parts takes."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from seqbench.bench.ceilings import wait_for
from seqbench.bench.loops import TrainerLoop

PARTS = ("data", "forward", "backward", "optimizer", "other")


class Stopwatch:
    """The accumulated seconds of each part of a step."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.last = time.perf_counter()

    def lap(self, part: str) -> None:
        """Wait for the device, then add the time since the last lap to `part`."""
        wait_for(self.device)
        now = time.perf_counter()
        self.seconds[part] += now - self.last
        self.last = now

    def around(self, function: Callable[..., Any], before: str, part: str) -> Callable[..., Any]:
        """Wrap `function`: when called it ends the part `before`, when done the part `part`."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            self.lap(before)
            result = function(*args, **kwargs)
            self.lap(part)
            return result

        return timed


def time_split(loop: TrainerLoop, count: int) -> dict[str, float]:
    """Return the share of each part of a training step, by name; the shares sum to one.

    These steps are separate from the timed ones, because each part ends with a GPU synchronization,
    and run without a CUDA graph, which has no parts. `forward` includes the loss, `optimizer` the
    clipping; `other` is the rest of the trainer's work.

    Args:
        loop: its methods are wrapped during the measurement, and restored after it.
        count: steps to run.
    """
    task, trainer = loop.experiment.task, loop.trainer
    optimizer, autocast = loop.experiment.state.optimizer, trainer.autocast
    watch = Stopwatch(loop.experiment.device)

    @contextmanager
    def forward(device: torch.device) -> Iterator[None]:
        watch.lap("backward")  # of the previous micro-batch, if there are several
        with autocast(device):
            yield
        watch.lap("forward")

    # Instance attributes hide the methods of the class.
    replaced: list[tuple[Any, str, Callable[..., Any]]] = [
        (task, "train_batch", watch.around(task.train_batch, "other", "data")),
        (trainer, "autocast", forward),
        (trainer, "backward", watch.around(trainer.backward, "other", "backward")),
        (optimizer, "zero_grad", watch.around(optimizer.zero_grad, "optimizer", "optimizer")),
    ]
    for owner, name, function in replaced:
        setattr(owner, name, function)
    graph, trainer.graph = trainer.graph, False
    try:
        loop.steps(count)
        watch.lap("other")
    finally:
        trainer.graph = graph
        for owner, name, _ in replaced:
            delattr(owner, name)
    total = sum(watch.seconds.values())
    return {part: seconds / total for part, seconds in watch.seconds.items()}
