"""A training step as a CUDA graph: captured once, then started as a whole.

A step of models as small as these is some hundreds of kernels that take microseconds each, and a
GPU waits for Python to start one after the other. A graph of them is started by one call. It does
again what the captured step did, with the same memory. Hence
- what goes in is copied to where that step read it;
- what else differs from step to step lies in tensors on the device: learning rates, counters of
  steps, the state of the random generator;
- what Python decides is decided once. There is a graph for each form of what goes in: shapes,
  whether a text begins, whether a state is carried. A model that counts its calls in Python, or
  draws from Python's generator, cannot be trained so;
- the first steps of each form are taken as ever. They make the optimizer's slots and let cuDNN
  choose its algorithms, and neither can be captured.
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

from seqbench.errors import ConfigError, RunError
from seqbench.out_of_memory import is_out_of_memory
from seqbench.tasks.task import Batch
from seqbench.training.carried import Carried, flatten, unflatten

WARM_UP = 2
# Each graph keeps the memory of a step: forms beyond these are not captured. Nor are all counted,
# should each step have one of its own.
MOST_GRAPHS, MOST_FORMS = 8, 1000

Result = TypeVar("Result")
Step = Callable[[Sequence[Batch], Carried], Result]
# Names, shapes and types of the tensors that go in, and all that goes in besides.
Form = tuple[Any, ...]


class Graphs:
    """The captured steps of one training, whose weights and slots stay where they are in memory.

    Args:
        optimizer: of weights on the GPU, used by the steps.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.seen: Counter[Form] = Counter()
        self.captured: dict[Form, Captured[Any]] = {}

    def wrap(self, step: Step[Result]) -> Step[Result]:
        """Return a step that runs `step`, which leaves no gradients, as graphs where it can.

        The optimizer's learning rates become tensors.

        Raises:
            ConfigError: if the optimizer, as a checkpoint may have it, cannot be captured.
        """
        check_fused(self.optimizer)
        rates_to_device(self.optimizer)
        return partial(self.take, step)

    def take(self, step: Step[Result], batches: Sequence[Batch], carried: Carried) -> Result:
        """Take a training step.

        Args:
            step: does it, and leaves no gradients; the same one at each call.
            batches: what it reads.
            carried: the state before it.

        Returns:
            What `step` returns; its tensors are overwritten by the next step of this form.

        Raises:
            RunError: the step cannot be captured.
        """
        form = form_of(batches, carried)
        if form not in self.captured:
            if len(self.captured) == MOST_GRAPHS or len(self.seen) == MOST_FORMS:
                return step(batches, carried)
            self.seen[form] += 1
            if self.seen[form] <= WARM_UP:
                return aside(lambda: step(batches, carried))
            with capturable(self.optimizer):
                self.captured[form] = Captured(step, batches, carried)
        return self.captured[form](batches, carried)


class Captured(Generic[Result]):
    """A captured step.

    Args:
        step: is captured, not taken.
        batches: of the form that it is for.
        carried: likewise.

    Raises:
        RunError: it cannot be captured.
    """

    def __init__(self, step: Step[Result], batches: Sequence[Batch], carried: Carried) -> None:
        self.batches = [replace(batch, **clones(tensors(batch))) for batch in batches]
        self.carried = unflatten(clones(flatten(carried, "carried")), "carried")
        try:
            self.replay, self.result = capture(lambda: step(self.batches, self.carried))
        except RuntimeError as error:
            # To end a capture in which something was raised raises once more.
            cause = error.__context__ or error
            if is_out_of_memory(cause):
                raise cause from None
            reason = str(cause).split("\n")[0]
            raise RunError(
                f"the training step cannot be captured as a CUDA graph: {reason}; "
                "trainer.graph=false trains without"
            ) from error

    def __call__(self, batches: Sequence[Batch], carried: Carried) -> Result:
        """Take the step with what is given now."""
        mine, given = inputs(self.batches, self.carried), inputs(batches, carried)
        torch._foreach_copy_(list(mine.values()), [given[name] for name in mine])
        self.replay()
        return self.result


def can_capture(device: torch.device) -> bool:
    """Return True if steps on a device can be captured."""
    return device.type == "cuda"


def aside(call: Callable[[], Result]) -> Result:
    """Call on the stream of captures, as torch wants it of the steps before."""
    stream = stream_of(torch.cuda.current_device())
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        result = call()
    torch.cuda.current_stream().wait_stream(stream)
    return result


@cache
def stream_of(device: int) -> torch.cuda.Stream:
    """One for all captures on a device: libraries keep memory to work in for each stream."""
    return torch.cuda.Stream(device)


def capture(call: Callable[[], Result]) -> tuple[Callable[[], None], Result]:
    """Capture what a call does on the GPU: what does it again, and where its result will lie."""
    graph, stream = torch.cuda.CUDAGraph(), stream_of(torch.cuda.current_device())
    # The outer context for a capture that fails, which leaves its stream the current one.
    with torch.cuda.stream(stream), torch.cuda.graph(graph, stream=stream):
        result = call()
    return graph.replay, result


def tensors(batch: Batch) -> dict[str, Tensor]:
    """The tensors of a batch by name, those of a user's own kind of batch among them."""
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def clones(named: dict[str, Tensor]) -> dict[str, Any]:
    """Copies of tensors, under their names."""
    return {name: x.clone() for name, x in named.items()}


def inputs(batches: Sequence[Batch], carried: Carried) -> dict[str, Tensor]:
    """All tensors that go into a step, by a name."""
    named = {f"{i}.{k}": x for i, batch in enumerate(batches) for k, x in tensors(batch).items()}
    return named | flatten(carried, "carried")


def form_of(batches: Sequence[Batch], carried: Carried) -> Form:
    """What a graph is for: it can take whatever has the same form.

    Raises:
        RunError: a batch of a user's own kind has what can be neither copied nor compared.
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
    """Raise `ConfigError` if an optimizer's step cannot be captured as a CUDA graph."""
    if not all(group.get("fused") for group in optimizer.param_groups):
        name = type(optimizer).__name__
        raise ConfigError(f"trainer.graph needs adam, adamw or sgd, fused, and not {name}")


def rates_to_device(optimizer: Optimizer) -> None:
    """Let the learning rates be tensors beside the weights, which a captured step reads anew."""
    for group in optimizer.param_groups:
        if not isinstance(group["lr"], Tensor):
            group["lr"] = torch.tensor(float(group["lr"]), device=group["params"][0].device)


@contextmanager
def capturable(optimizer: Optimizer) -> Iterator[None]:
    """Tell an optimizer that asks for it that its step is about to be captured."""
    groups = [group for group in optimizer.param_groups if "capturable" in group]
    before = [group["capturable"] for group in groups]
    for group in groups:
        group["capturable"] = True
    try:
        yield
    finally:
        for group, value in zip(groups, before, strict=True):
            group["capturable"] = value
