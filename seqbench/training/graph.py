"""Capture training steps as CUDA graphs and replay them.

A step of a small model is hundreds of kernels that take microseconds each, and the GPU waits for
Python to launch them one by one. One call launches all kernels of a graph. A replay runs the
captured kernels again in the same memory. Hence
- inputs are copied to the tensors that the captured step read;
- all else that changes from step to step is in tensors on the GPU: learning rates, step counters,
  the state of the random generator;
- Python code runs only during capture. There is one graph for each signature of the inputs:
  tensor shapes and dtypes, whether a text begins, whether a state is carried. A model that counts
  its calls in Python, or draws from Python's random generator, cannot be trained like this;
- the first steps of each signature are warm-up and run without a graph. They create the optimizer's
  slots and let cuDNN choose its algorithms, neither of which can be captured.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import cache, partial
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from seqbench.errors import ConfigError, RunError, first_line, is_out_of_memory
from seqbench.tasks.task import Batch
from seqbench.training.carried import Carried, flatten, unflatten

WARM_UP = 2
# Each graph keeps the memory of a step, so at most 8 signatures are captured. At most 1000 are
# counted, in case every step has a new signature.
MOST_GRAPHS, MOST_SIGNATURES = 8, 1000

Result = TypeVar("Result")
Step = Callable[[Sequence[Batch], Carried], Result]
# Names, shapes and dtypes of the input tensors, and the values of all other inputs.
Signature = tuple[Any, ...]


class Graphs:
    """The captured steps of one training, whose weights and slots must keep their memory.

    Args:
        optimizer: the optimizer that the steps use; its weights are on the GPU.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.seen: Counter[Signature] = Counter()
        self.captured: dict[Signature, Captured[Any]] = {}

    def wrap(self, step: Step[Result]) -> Step[Result]:
        """Return a step that does the same as `step`, with CUDA graphs where possible.

        Turns the optimizer's learning rates into tensors.

        Args:
            step: a training step that clears the gradients at its end.

        Raises:
            ConfigError: if the optimizer is not fused, which a checkpoint may have changed.
        """
        check_fused(self.optimizer)
        rates_to_device(self.optimizer)
        return partial(self.take, step)

    def take(self, step: Step[Result], batches: Sequence[Batch], carried: Carried) -> Result:
        """Run a training step: directly in warm-up or beyond the limits, else as a graph.

        Args:
            step: clears the gradients at its end; must be the same one at each call.
            batches: the input of `step`, on the GPU.
            carried: the model's state before the step, or `None`.

        Returns:
            The result of `step`. The next step of the same signature overwrites its tensors.

        Raises:
            RunError: if the step cannot be captured.
        """
        signature = signature_of(batches, carried)
        if signature not in self.captured:
            if len(self.captured) == MOST_GRAPHS or len(self.seen) == MOST_SIGNATURES:
                return step(batches, carried)
            self.seen[signature] += 1
            if self.seen[signature] <= WARM_UP:
                return on_capture_stream(lambda: step(batches, carried))
            with capturable(self.optimizer):
                self.captured[signature] = Captured(step, batches, carried)
        return self.captured[signature](batches, carried)


class Captured(Generic[Result]):
    """A training step, captured as a CUDA graph for one signature of its inputs.

    Args:
        step: is captured but not executed; the weights do not change.
        batches: of the signature to capture; they are copied.
        carried: likewise.

    Raises:
        RunError: if the step cannot be captured.
    """

    def __init__(self, step: Step[Result], batches: Sequence[Batch], carried: Carried) -> None:
        self.batches = [replace(batch, **clones(tensors(batch))) for batch in batches]
        self.carried = unflatten(clones(flatten(carried, "carried")), "carried")
        try:
            self.replay, self.result = capture(lambda: step(self.batches, self.carried))
        except RuntimeError as error:
            # An error in a capture makes its end raise a second one: report the first.
            cause = error.__context__ or error
            if is_out_of_memory(cause):
                raise cause from None
            raise RunError(
                f"the training step cannot be captured as a CUDA graph: {first_line(cause)}; "
                "trainer.graph=false trains without"
            ) from error

    def __call__(self, batches: Sequence[Batch], carried: Carried) -> Result:
        """Copy the inputs to the captured tensors, and replay the step."""
        mine, given = inputs(self.batches, self.carried), inputs(batches, carried)
        torch._foreach_copy_(list(mine.values()), [given[name] for name in mine])
        self.replay()
        return self.result


def can_capture(device: torch.device) -> bool:
    """Return True if training steps on the device can be captured."""
    return device.type == "cuda"


def on_capture_stream(call: Callable[[], Result]) -> Result:
    """Run `call` on the capture stream, as torch requires of warm-up steps."""
    stream = stream_of(torch.cuda.current_device())
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        result = call()
    torch.cuda.current_stream().wait_stream(stream)
    return result


@cache
def stream_of(device: int) -> torch.cuda.Stream:
    """Return the device's one capture stream: libraries keep a workspace for each stream."""
    return torch.cuda.Stream(device)


def capture(call: Callable[[], Result]) -> tuple[Callable[[], None], Result]:
    """Capture a call; return a function that replays it, and the result that each replay fills."""
    graph, stream = torch.cuda.CUDAGraph(), stream_of(torch.cuda.current_device())
    # The outer context restores the current stream: `torch.cuda.graph` does not after a failure.
    with torch.cuda.stream(stream), torch.cuda.graph(graph, stream=stream):
        result = call()
    return graph.replay, result


def tensors(batch: Batch) -> dict[str, Tensor]:
    """Return the tensors of a batch by field name, also those of a user's subclass of `Batch`."""
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def clones(named: dict[str, Tensor]) -> dict[str, Any]:
    """Return copies of tensors under the same names."""
    return {name: x.clone() for name, x in named.items()}


def inputs(batches: Sequence[Batch], carried: Carried) -> dict[str, Tensor]:
    """Return all input tensors of a step by a unique name."""
    named = {f"{i}.{k}": x for i, batch in enumerate(batches) for k, x in tensors(batch).items()}
    return named | flatten(carried, "carried")


def signature_of(batches: Sequence[Batch], carried: Carried) -> Signature:
    """Return the signature of a step's inputs: inputs of the same signature can use the same graph.

    Raises:
        RunError: if a field of a batch is neither a tensor nor a number, text, bool or `None`.
    """
    shapes = tuple((name, x.shape, x.dtype) for name, x in inputs(batches, carried).items())
    rest = []
    for batch in batches:
        for field in fields(batch):
            value = getattr(batch, field.name)
            if isinstance(value, Tensor):
                continue
            if not isinstance(value, bool | int | float | str | None):
                raise RunError(
                    f"trainer.graph wants a batch of tensors, numbers and texts, but its "
                    f"{field.name} is of type {type(value).__name__}"
                )
            rest.append((type(batch), field.name, value))
    return shapes, tuple(rest)


def check_fused(optimizer: Optimizer) -> None:
    """Raise `ConfigError` if an optimizer is not fused, so that its step cannot be captured."""
    if not all(group.get("fused") for group in optimizer.param_groups):
        name = type(optimizer).__name__
        raise ConfigError(f"trainer.graph needs adam, adamw or sgd, fused, and not {name}")


def rates_to_device(optimizer: Optimizer) -> None:
    """Turn the learning rates into tensors on the weights' device: each replay reads them."""
    for group in optimizer.param_groups:
        if not isinstance(group["lr"], Tensor):
            group["lr"] = torch.tensor(float(group["lr"]), device=group["params"][0].device)


@contextmanager
def capturable(optimizer: Optimizer) -> Iterator[None]:
    """Hold the flag `capturable` at True in the optimizer's parameter groups that have it."""
    groups = [group for group in optimizer.param_groups if "capturable" in group]
    before = [group["capturable"] for group in groups]
    for group in groups:
        group["capturable"] = True
    try:
        yield
    finally:
        for group, value in zip(groups, before, strict=True):
            group["capturable"] = value
