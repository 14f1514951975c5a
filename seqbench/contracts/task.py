"""Check a task's contracts: attributes, batches, loss and metrics, seeds, splits."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields

import torch
from torch import Tensor

from seqbench.contracts.contract import (
    ContractViolation,
    NotApplicable,
    Result,
    listed,
    said,
    tried,
)
from seqbench.errors import ConfigError, DataError
from seqbench.spec import SequenceSpec, Tokens
from seqbench.tasks.task import Batch, Split, Task
from seqbench.training.accumulation import check_accumulation

BuildTask = Callable[[int], Task]

# Published splits may share a few short sequences by chance; a larger fraction is a leak.
MAX_SHARED = 0.01
EVAL_SPLITS: tuple[Split, ...] = ("valid", "test")


def check_task(build: BuildTask) -> Iterator[Result]:
    """Run every contract of a task.

    Args:
        build: builds a new task for a seed.

    Yields:
        First the result of building the task; if that passes, one result per contract.

    Raises:
        ConfigError: if the task rejects its config.
        DataError: if the task's data cannot be loaded.
    """
    name = "can be built"
    try:
        task = build(0)
        task.to(torch.device("cpu"))
    except (ConfigError, DataError):
        raise
    except Exception as error:
        yield Result(name, False, said(error))
        return
    yield Result(name, True)
    for name, contract in CONTRACTS.items():
        yield Result(name, *tried(contract, task, build))


def facts(task: Task, build: BuildTask) -> None:
    """Require valid attributes: spec, primary metric, baseline, optimum, steps per epoch."""
    for name in ("spec", "primary", "baseline", "steps_per_epoch"):
        if not hasattr(task, name):
            raise ContractViolation(f"it has no attribute {name}")
    if not isinstance(task.spec, SequenceSpec):
        raise ContractViolation(f"spec is a {type(task.spec).__name__}, not a SequenceSpec")
    if not math.isfinite(task.baseline):
        raise ContractViolation(f"baseline is {task.baseline}, not a finite number")
    if task.optimum is not None and not task.primary.better(task.optimum, task.baseline):
        raise ContractViolation(
            f"optimum {task.optimum} is no better than baseline {task.baseline}"
        )
    if task.steps_per_epoch < 1:
        raise ContractViolation(f"steps_per_epoch is {task.steps_per_epoch}")


def batches(task: Task, build: BuildTask) -> None:
    """Require training and evaluation batches that match the spec."""
    trained = task.train_batch(0)
    if len(trained.inputs) != task.batch_size:
        raise ContractViolation(
            f"a training batch has {len(trained.inputs)} rows, not {task.batch_size}"
        )
    steps, most = trained.inputs.shape[1], task.spec.length
    if steps > most or (steps < most and not task.spec.variable_length):
        raise ContractViolation(f"training has {steps} steps, not {most}")
    fits(task, trained, "train_batch(0)")
    for split in EVAL_SPLITS:
        first = True
        for batch in task.eval_batches(split):
            fits(task, batch, f"a batch of {split}")
            if first and not batch.fresh:
                raise ContractViolation(f"the first batch of {split} is not marked fresh")
            first = False
        if first:
            raise ContractViolation(f"{split} has no batches")


def fits(task: Task, batch: Batch, name: str) -> None:
    """Require that one batch has the shape, dtype and values that the spec states.

    Args:
        task: the task.
        batch: its batch.
        name: the batch in messages.
    """
    spec, x = task.spec, batch.inputs
    if isinstance(spec.input, Tokens):
        if x.dtype != torch.int64 or x.ndim != 2:
            raise ContractViolation(f"inputs of {name} are {described(x)}, not (batch, time) int64")
        if x.min() < 0 or x.max() >= spec.input.vocab_size:
            raise ContractViolation(f"{name} has tokens outside 0 to {spec.input.vocab_size - 1}")
    elif not x.is_floating_point() or x.ndim != 3 or x.shape[2] != spec.input.dim:
        raise ContractViolation(
            f"inputs of {name} are {described(x)}, not (batch, time, {spec.input.dim})"
        )
    elif not x.isfinite().all():
        raise ContractViolation(f"inputs of {name} are not finite")
    if len(batch.targets) != len(x):
        raise ContractViolation(f"{name} has {len(x)} inputs and {len(batch.targets)} targets")
    if batch.scored is not None and batch.scored.shape != x.shape[:2]:
        raise ContractViolation(
            f"scored of {name} is {described(batch.scored)}, not {tuple(x.shape[:2])}"
        )
    if batch.lengths is not None:
        if not task.spec.variable_length:
            raise ContractViolation(f"{name} has lengths, and the spec no variable_length")
        whole = batch.lengths.dtype == torch.int64 and batch.lengths.shape == x.shape[:1]
        if not whole or batch.lengths.min() < 1 or batch.lengths.max() != x.shape[1]:
            raise ContractViolation(
                f"lengths of {name} must be (batch,) int64, from 1 to the {x.shape[1]} steps of "
                "its inputs"
            )
    if not 0 <= batch.context < x.shape[1]:
        raise ContractViolation(f"{name} of {x.shape[1]} steps has a context of {batch.context}")
    scored = torch.ones(x.shape[:2]) if batch.scored is None else batch.scored
    if spec.readout == "every" and scored[:, : batch.context].any():
        raise ContractViolation(f"{name} scores its context, which the batch before has scored")


def scores(task: Task, build: BuildTask) -> None:
    """Require a finite loss with a gradient, and finite metrics, for random outputs."""
    batch = task.train_batch(0)
    every = task.spec.readout == "every"
    shape = batch.inputs.shape[: 2 if every else 1]
    outputs = torch.randn(*shape, task.spec.output_dim, generator=torch.Generator().manual_seed(0))
    outputs.requires_grad_()
    loss = task.loss(outputs, batch)
    if loss.ndim or not loss.isfinite():
        raise ContractViolation(
            f"the loss of random outputs is {described(loss)}, not a finite number"
        )
    loss.backward()
    if outputs.grad is None or not outputs.grad.any():
        raise ContractViolation("the loss has no gradient in the outputs")
    metrics = task.metrics(outputs.detach(), batch)
    if task.primary.metric not in metrics:
        raise ContractViolation(
            f"primary is {task.primary.metric}, but metrics are {listed([*metrics])}"
        )
    for name, (total, count) in metrics.items():
        if total.ndim or not total.isfinite() or count < 1:
            raise ContractViolation(f"metric {name} is {described(total)} over {count} terms")


def micro_batches(task: Task, build: BuildTask) -> None:
    """Require that the loss of a batch is the weighted sum of the losses of its micro-batches."""
    if task.batch_size == 1:
        raise NotApplicable("a batch of one sequence cannot be split")
    parts = next(n for n in range(2, task.batch_size + 1) if task.batch_size % n == 0)
    for step in range(min(5, task.steps_per_epoch)):
        try:
            check_accumulation(task, task.train_batch(step), parts)
        except ConfigError as error:
            raise ContractViolation(str(error)) from error


def by_step(task: Task, build: BuildTask) -> None:
    """Require that a training batch depends on the step and the seed only."""
    steps = sorted({0, 1, 2, task.steps_per_epoch - 1, task.steps_per_epoch, 10**6})
    first = {step: task.train_batch(step) for step in steps}
    again = build(0)
    for step in reversed(steps):
        if not same(first[step], task.train_batch(step)):
            raise ContractViolation(f"train_batch({step}) asked for twice gives two batches")
        if not same(first[step], again.train_batch(step)):
            raise ContractViolation(
                f"train_batch({step}) of a second task of the same seed is another batch"
            )
    if len(steps) > 3 and same(first[0], first[1]) and same(first[1], first[2]):
        raise ContractViolation("every step has the same batch")


def same_splits(task: Task, build: BuildTask) -> None:
    """Require the same validation and test batches on every read and for every seed."""
    other = build(1)
    for split in EVAL_SPLITS:
        first = list(task.eval_batches(split))
        for reader, when in ((task, "read twice"), (other, "with another seed")):
            again = list(reader.eval_batches(split))
            if len(first) != len(again) or not all(map(same, first, again)):
                raise ContractViolation(f"{split} is not the same {when}")


def disjoint(task: Task, build: BuildTask) -> None:
    """Require that at most a fraction `MAX_SHARED` of a split's sequences is in another split."""
    rows = {"train": fingerprints(map(task.train_batch, range(task.steps_per_epoch)))}
    rows |= {split: fingerprints(task.eval_batches(split)) for split in EVAL_SPLITS}
    for a, b in (("valid", "train"), ("test", "train"), ("test", "valid")):
        shared = len(rows[a] & rows[b])
        if shared > MAX_SHARED * len(rows[a]):
            raise ContractViolation(
                f"{shared} of the {len(rows[a])} sequences of {a} are in {b} too"
            )


def fingerprints(batches: Iterable[Batch]) -> set[int]:
    """Return the hashes of all rows of the inputs, without their padding."""
    found = set()
    for batch in batches:
        rows = batch.inputs.cpu().numpy()
        if batch.lengths is None:
            found |= {hash(row.tobytes()) for row in rows}
        else:
            ends = zip(rows, batch.lengths.tolist(), strict=True)
            found |= {hash(row[:end].tobytes()) for row, end in ends}
    return found


def same(a: Batch, b: Batch) -> bool:
    """Return True if all fields of the two batches are equal."""
    pairs = [(getattr(a, field.name), getattr(b, field.name)) for field in fields(a)]
    return all(
        torch.equal(x, y) if isinstance(x, Tensor) and isinstance(y, Tensor) else x is y or x == y
        for x, y in pairs
    )


def described(tensor: Tensor) -> str:
    """Return a scalar tensor's value, or another tensor's shape and dtype, as text."""
    if not tensor.ndim:
        return f"{tensor.item():g}"
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


CONTRACTS: dict[str, Callable[[Task, BuildTask], None]] = {
    "attributes are valid": facts,
    "batches match the spec": batches,
    "loss and metrics are finite": scores,
    "micro-batches add up to the batch": micro_batches,
    "a batch depends on step and seed only": by_step,
    "validation and test are fixed": same_splits,
    "splits are disjoint": disjoint,
}
