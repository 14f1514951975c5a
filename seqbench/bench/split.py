"""Where a step's time goes."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from seqbench.bench.ceilings import wait_for
from seqbench.bench.loops import TrainerLoop

PARTS = ("data", "forward", "backward", "optimizer", "other")


class Stopwatch:
    """Adds up the time of each part: what passed since the last lap belongs to the part named."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.last = time.perf_counter()

    def lap(self, part: str) -> None:
        """A part ends here, or goes on."""
        wait_for(self.device)
        now = time.perf_counter()
        self.seconds[part] += now - self.last
        self.last = now

    def around(self, function: Callable[..., Any], before: str, part: str) -> Callable[..., Any]:
        """A function that ends one part when it is called, and another when it is done."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            self.lap(before)
            result = function(*args, **kwargs)
            self.lap(part)
            return result

        return timed


def time_split(loop: TrainerLoop, count: int) -> dict[str, float]:
    """The share of each part of a training step, by name; they add up to one.

    Measured apart from the timed steps, since a GPU is waited for at the end of each part, and
    without a CUDA graph, which has none. The forward part ends with the loss, the optimiser's has
    the clipping; `other` is what the trainer does besides.

    Args:
        loop: watched from outside, and left as it was.
        count: steps to take.
    """
    task, trainer = loop.experiment.task, loop.trainer
    optimizer, autocast = loop.experiment.state.optimizer, trainer.autocast
    watch = Stopwatch(loop.experiment.device)

    @contextmanager
    def forward(device: torch.device) -> Iterator[None]:
        watch.lap("backward")  # of the micro-batch before, if there are several
        with autocast(device):
            yield
        watch.lap("forward")

    # On the objects, in front of what their classes have.
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
