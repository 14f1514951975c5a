"""What every model and every task must hold, tried out from outside.

`seqbench check` runs these on a person's own model or task, and our tests on ours. A contract is a
function that does nothing where it holds, and raises `Broken` with a plain sentence where not.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seqbench.errors import ConfigError, DataError
from seqbench.spec import Classes, Features, Readout, SequenceSpec, Tokens, Values
from seqbench.tasks.task import Batch, Split, Task

BuildModel = Callable[[SequenceSpec], nn.Module]
BuildTask = Callable[[int], Task]

# An odd length, so that strides and dilations do not divide it.
LENGTH = 37
BATCH = 3
# What sums in another order may differ by in single precision, relative to the outputs' size.
ROUNDING = 1e-5
# Published splits may share a few short sequences by chance; more than this is a leak.
MAX_SHARED = 0.01


class Broken(Exception):
    """A contract does not hold; the text says how."""


@dataclass(frozen=True)
class Result:
    """What came of trying one contract.

    Attributes:
        name: what must hold, in a few words.
        passed: whether it holds.
        message: why not; or a remark, or nothing.
    """

    name: str
    passed: bool
    message: str = ""


def check_model(build: BuildModel) -> Iterator[Result]:
    """Try every contract of a model, on every kind of problem that it takes.

    Args:
        build: makes a new model for a spec. It may refuse a kind of problem with `ConfigError`.

    Yields:
        One result a contract; nothing after a model that cannot be built.
    """
    name = "can be built"
    taken: dict[str, SequenceSpec] = {}
    refused: dict[str, str] = {}
    for kind, spec in SPECS.items():
        try:
            seeded(build, spec)
            taken[kind] = spec
        except ConfigError as refusal:
            refused[kind] = str(refusal)
        except Exception as error:
            hint = "a model that is not for such a task should raise seqbench.errors.ConfigError"
            yield Result(name, False, f"{kind}: {said(error)} ({hint})")
            return
    if not taken:
        yield Result(name, False, f"it refuses every kind of task: {refused.popitem()[1]}")
        return
    remark = ""
    if refused:
        kind, reason = next(iter(refused.items()))
        remark = f"not for {len(refused)} of {len(SPECS)} kinds of task; for {kind}: {reason}"
    yield Result(name, True, remark)
    for name, contract in MODEL_CONTRACTS.items():
        failures = ((kind, failure(contract, build, spec)) for kind, spec in taken.items())
        kind, message = next((found for found in failures if found[1]), ("", ""))
        yield Result(name, not message, f"{kind}: {message}" if message else "")


def check_task(build: BuildTask) -> Iterator[Result]:
    """Try every contract of a task.

    Args:
        build: makes a new task for a seed.

    Yields:
        One result a contract; nothing after a task that cannot be built.

    Raises:
        ConfigError: the task refuses its values.
        DataError: the task's data cannot be had.
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
    for name, contract in TASK_CONTRACTS.items():
        message = failure(contract, task, build)
        yield Result(name, not message, message)


def failure(contract: Callable[..., None], *args: Any) -> str:
    """Why a contract does not hold; empty where it does."""
    try:
        contract(*args)
    except Broken as broken:
        return str(broken)
    except Exception as error:
        return said(error)
    return ""


def said(error: Exception) -> str:
    """An exception in one line."""
    return f"raised {type(error).__name__}: {error}".split("\n")[0].rstrip(": ")


# --- models ---------------------------------------------------------------------------------------

READOUTS: tuple[Readout, ...] = ("last", "every")
SPECS = {
    f"{type(source).__name__} to {type(target).__name__}, readout {readout}": SequenceSpec(
        source, target, readout, LENGTH
    )
    for source in (Features(2), Tokens(11))
    for target in (Classes(11), Values(3))
    for readout in READOUTS
}


def seeded(build: BuildModel, spec: SequenceSpec, seed: int = 0) -> nn.Module:
    """A new model, in evaluation mode."""
    torch.manual_seed(seed)
    return build(spec).eval()


def example(spec: SequenceSpec, seed: int = 0) -> Tensor:
    """A batch of random inputs."""
    random = torch.Generator().manual_seed(seed)
    if isinstance(spec.input, Tokens):
        return torch.randint(spec.input.vocab_size, (BATCH, spec.length), generator=random)
    return torch.randn(BATCH, spec.length, spec.input.dim, generator=random)


def run(model: nn.Module, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
    """A model's output and, if it can carry one, its state."""
    if not hasattr(model, "carry_state"):
        output = model(x)
        if not isinstance(output, Tensor):
            raise Broken(
                f"forward returned a {type(output).__name__}, not a tensor (a model that returns a "
                "state too needs an attribute carry_state, true or false)"
            )
        return output, None
    result = model(x, state)
    if not isinstance(result, tuple) or len(result) != 2:
        raise Broken("a model with an attribute carry_state must return (output, state)")
    return result


def difference(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the outputs' size."""
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-30))


def output_shape(build: BuildModel, spec: SequenceSpec) -> None:
    """`(batch, out)` for readout `last`, `(batch, time, out)` for `every`; and finite."""
    with torch.no_grad():
        output, _ = run(seeded(build, spec), example(spec))
    every = spec.readout == "every"
    expected = (BATCH, spec.length, spec.output_dim) if every else (BATCH, spec.output_dim)
    if output.shape != expected:
        raise Broken(f"the output is {tuple(output.shape)}, not {expected}")
    if not output.isfinite().all():
        raise Broken("the output is not finite")


@torch.no_grad()
def causal(build: BuildModel, spec: SequenceSpec) -> None:
    """Change the input from some step on: the outputs before that step must not move."""
    if spec.readout == "last":
        return
    model = seeded(build, spec)
    x = example(spec)
    other = example(spec, seed=1)
    before, _ = run(model, x)
    for start in (1, 2, 7, spec.length // 2, spec.length - 2, spec.length - 1):
        changed = torch.cat([x[:, :start], other[:, start:]], 1)
        after, _ = run(model, changed)
        moved = (after - before)[:, :start].abs().amax((0, 2))
        # Relative to the outputs' size; the same sums may be rounded otherwise.
        if moved.max() > ROUNDING / 10 * before.abs().max():
            step = int(moved.argmax())
            raise Broken(
                f"it sees the future: the output at step {step} moved by {moved[step]:.1g} when "
                f"the input changed from step {start} on"
            )


def gradients(build: BuildModel, spec: SequenceSpec) -> None:
    """The loss has a finite gradient, not all zero, in every parameter."""
    model = seeded(build, spec)
    with torch.no_grad():
        for parameter in model.parameters():
            # Away from where training starts: a gate that starts at zero hides what is behind it.
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    output, _ = run(model, example(spec))
    (output * torch.randn_like(output)).sum().backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trained:
        raise Broken("it has no parameters to train")
    dead = [name for name, p in trained.items() if p.grad is None or not p.grad.any()]
    if dead:
        raise Broken(f"no gradient reaches {listed(dead)}")
    wild = [n for n, p in trained.items() if p.grad is not None and not p.grad.isfinite().all()]
    if wild:
        raise Broken(f"the gradient is not finite in {listed(wild)}")


@torch.no_grad()
def state_dict(build: BuildModel, spec: SequenceSpec) -> None:
    """Another model with these weights loaded is the same function."""
    model, copy = seeded(build, spec), seeded(build, spec, seed=1)
    copy.load_state_dict(model.state_dict())
    x = example(spec)
    if not torch.equal(run(model, x)[0], run(copy, x)[0]):
        raise Broken(
            "a copy with the same state_dict answers differently: some of its weights or buffers "
            "are not registered (a plain list of layers should be an nn.ModuleList)"
        )


@torch.no_grad()
def deterministic(build: BuildModel, spec: SequenceSpec) -> None:
    """The same seed gives the same weights; the same input, in evaluation, the same output."""
    model, again = seeded(build, spec), seeded(build, spec)
    for (name, a), b in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        if not torch.equal(a, b):
            raise Broken(f"built twice after torch.manual_seed(0), {name} starts differently")
    x = example(spec)
    kept = x.clone()
    first = run(model, x)[0].clone()
    if not torch.equal(x, kept):
        raise Broken("it writes to its input")
    if not torch.equal(first, run(model, x)[0]):
        raise Broken("in evaluation mode, the same input twice gives different outputs")


@torch.no_grad()
def segments(build: BuildModel, spec: SequenceSpec) -> None:
    """A sequence in segments with the state carried is as good as one long pass."""
    model = seeded(build, spec)
    if not hasattr(model, "carry_state"):
        return
    x = example(spec)
    whole, _ = run(model, x)
    state = None
    parts = []
    for segment in x.split([spec.length - 20, 1, 12, 7], 1):
        output, state = run(model, segment, state)
        parts.append(output)
        for tensor in leaves(state):
            if tensor.ndim < 1 or len(tensor) != BATCH:
                raise Broken(
                    f"the first dimension of the state's tensors must be the batch, {BATCH} here; "
                    f"one is {tuple(tensor.shape)}"
                )
    joined = torch.cat(parts, 1) if spec.readout == "every" else parts[-1]
    apart = difference(joined, whole)
    if not apart <= ROUNDING:
        raise Broken(
            f"in segments with the state carried, outputs differ by {apart:.1g} of their size from "
            "one long pass"
        )


def leaves(tree: Any) -> Iterator[Tensor]:
    """The tensors of a state."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for branch in tree:
            yield from leaves(branch)
    else:
        raise Broken(
            f"a state is made of tensors in tuples or lists; here is a {type(tree).__name__}"
        )


def listed(names: list[str]) -> str:
    """Names in a sentence, the first few of many."""
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more


MODEL_CONTRACTS: dict[str, Callable[[BuildModel, SequenceSpec], None]] = {
    "answers in the shape the task asks for": output_shape,
    "does not see the future": causal,
    "is trained in all its parameters": gradients,
    "is saved whole in its state_dict": state_dict,
    "is fixed by the seed": deterministic,
    "answers the same in segments, if it carries a state": segments,
}


# --- tasks ----------------------------------------------------------------------------------------

EVAL_SPLITS: tuple[Split, ...] = ("valid", "test")


def facts(task: Task, build: BuildTask) -> None:
    """The task says what it is: spec, metric, baseline, optimum, steps in an epoch."""
    for name in ("spec", "primary", "baseline", "steps_per_epoch"):
        if not hasattr(task, name):
            raise Broken(f"it has no attribute {name}")
    if not isinstance(task.spec, SequenceSpec):
        raise Broken(f"spec is a {type(task.spec).__name__}, not a SequenceSpec")
    if not math.isfinite(task.baseline):
        raise Broken(f"baseline is {task.baseline}, not a finite number")
    if task.optimum is not None and not task.primary.better(task.optimum, task.baseline):
        raise Broken(f"optimum {task.optimum} is no better than baseline {task.baseline}")
    if task.steps_per_epoch < 1:
        raise Broken(f"steps_per_epoch is {task.steps_per_epoch}")


def batches(task: Task, build: BuildTask) -> None:
    """Batches have the shape and the values that the spec promises."""
    trained = task.train_batch(0)
    if len(trained.inputs) != task.batch_size:
        raise Broken(f"a training batch has {len(trained.inputs)} rows, not {task.batch_size}")
    if trained.inputs.shape[1] != task.spec.length:
        raise Broken(f"training has {trained.inputs.shape[1]} steps, not {task.spec.length}")
    fits(task, trained, "train_batch(0)")
    for split in EVAL_SPLITS:
        first = True
        for batch in task.eval_batches(split):
            fits(task, batch, f"a batch of {split}")
            if first and not batch.fresh:
                raise Broken(f"the first batch of {split} goes on from one that there is not")
            first = False
        if first:
            raise Broken(f"{split} has no batches")


def fits(task: Task, batch: Batch, name: str) -> None:
    """One batch has the shape and the values that the spec promises."""
    spec, x = task.spec, batch.inputs
    if isinstance(spec.input, Tokens):
        if x.dtype != torch.int64 or x.ndim != 2:
            raise Broken(f"inputs of {name} are {described(x)}, not (batch, time) int64")
        if x.min() < 0 or x.max() >= spec.input.vocab_size:
            raise Broken(f"{name} has tokens outside 0 to {spec.input.vocab_size - 1}")
    elif not x.is_floating_point() or x.ndim != 3 or x.shape[2] != spec.input.dim:
        raise Broken(f"inputs of {name} are {described(x)}, not (batch, time, {spec.input.dim})")
    elif not x.isfinite().all():
        raise Broken(f"inputs of {name} are not finite")
    if len(batch.targets) != len(x):
        raise Broken(f"{name} has {len(x)} inputs and {len(batch.targets)} targets")
    if batch.scored is not None and batch.scored.shape != x.shape[:2]:
        raise Broken(f"scored of {name} is {described(batch.scored)}, not {tuple(x.shape[:2])}")
    if not 0 <= batch.context < x.shape[1]:
        raise Broken(f"{name} of {x.shape[1]} steps has a context of {batch.context}")


def scores(task: Task, build: BuildTask) -> None:
    """Loss and metrics are finite numbers of outputs in the spec's shape."""
    batch = task.train_batch(0)
    every = task.spec.readout == "every"
    shape = batch.inputs.shape[: 2 if every else 1]
    outputs = torch.randn(*shape, task.spec.output_dim, generator=torch.Generator().manual_seed(0))
    outputs.requires_grad_()
    loss = task.loss(outputs, batch)
    if loss.ndim or not loss.isfinite():
        raise Broken(f"the loss of random outputs is {described(loss)}, not a finite number")
    loss.backward()
    if outputs.grad is None or not outputs.grad.any():
        raise Broken("the loss has no gradient in the outputs")
    metrics = task.metrics(outputs.detach(), batch)
    if task.primary.metric not in metrics:
        raise Broken(f"primary is {task.primary.metric}, but metrics are {listed([*metrics])}")
    for name, (total, count) in metrics.items():
        if total.ndim or not total.isfinite() or count < 1:
            raise Broken(f"metric {name} is {described(total)} over {count} terms")


def by_step(task: Task, build: BuildTask) -> None:
    """A training batch is a function of the step and the seed, and of nothing else."""
    steps = sorted({0, 1, 2, task.steps_per_epoch - 1, task.steps_per_epoch, 10**6})
    first = {step: task.train_batch(step) for step in steps}
    again = build(0)
    for step in reversed(steps):
        if not same(first[step], task.train_batch(step)):
            raise Broken(f"train_batch({step}) asked for twice gives two batches")
        if not same(first[step], again.train_batch(step)):
            raise Broken(f"train_batch({step}) of a second task of the same seed is another batch")
    if len(steps) > 3 and same(first[0], first[1]) and same(first[1], first[2]):
        raise Broken("every step has the same batch")


def same_splits(task: Task, build: BuildTask) -> None:
    """Validation and test are the same at each reading, and whatever the seed."""
    other = build(1)
    for split in EVAL_SPLITS:
        first = list(task.eval_batches(split))
        for reader, when in ((task, "read twice"), (other, "with another seed")):
            again = list(reader.eval_batches(split))
            if len(first) != len(again) or not all(map(same, first, again)):
                raise Broken(f"{split} is not the same {when}")


def disjoint(task: Task, build: BuildTask) -> None:
    """No sequence of one split stands in another, but for a few by chance."""
    rows = {"train": fingerprints(map(task.train_batch, range(task.steps_per_epoch)))}
    rows |= {split: fingerprints(task.eval_batches(split)) for split in EVAL_SPLITS}
    for a, b in (("valid", "train"), ("test", "train"), ("test", "valid")):
        shared = len(rows[a] & rows[b])
        if shared > MAX_SHARED * len(rows[a]):
            raise Broken(f"{shared} of the {len(rows[a])} sequences of {a} are in {b} too")


def fingerprints(batches: Iterable[Batch]) -> set[int]:
    """A hash of each row of the inputs."""
    return {hash(row.tobytes()) for batch in batches for row in batch.inputs.cpu().numpy()}


def same(a: Batch, b: Batch) -> bool:
    """Whether two batches are equal bit for bit."""
    return (
        torch.equal(a.inputs, b.inputs)
        and torch.equal(a.targets, b.targets)
        and (a.scored is None) == (b.scored is None)
        and (a.scored is None or b.scored is None or torch.equal(a.scored, b.scored))
        and (a.fresh, a.context) == (b.fresh, b.context)
    )


def described(tensor: Tensor) -> str:
    """A tensor's value if it is a number, else its shape and type."""
    if not tensor.ndim:
        return f"{tensor.item():g}"
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


TASK_CONTRACTS: dict[str, Callable[[Task, BuildTask], None]] = {
    "says what it is": facts,
    "gives batches as its spec promises": batches,
    "scores outputs with finite numbers": scores,
    "draws a batch from step and seed alone": by_step,
    "has fixed validation and test splits": same_splits,
    "keeps its splits apart": disjoint,
}
