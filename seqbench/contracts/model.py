"""Check a model's contracts: shapes, causality, gradients, state dict, seeds, segments, context."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from seqbench.contracts.contract import (
    ContractViolation,
    NotApplicable,
    Result,
    listed,
    said,
    tried,
)
from seqbench.errors import ConfigError
from seqbench.models.sequence_model import SequenceModel, State, as_sequence_model
from seqbench.spec import Classes, Features, Readout, SequenceSpec, Tokens, Values

BuildModel = Callable[[SequenceSpec], nn.Module]

# Odd (and prime), so that strides and dilations do not divide it.
LENGTH = 37
BATCH = 3
# Tolerance for float32 sums taken in another order, relative to the largest output.
ROUNDING = 1e-5
READOUTS: tuple[Readout, ...] = ("last", "every")
SPECS = {
    f"{type(source).__name__} to {type(target).__name__}, readout {readout}": SequenceSpec(
        source, target, readout, LENGTH
    )
    for source in (Features(2), Tokens(11))
    for target in (Classes(11), Values(3))
    for readout in READOUTS
} | {
    "forecasting": SequenceSpec(Features(4), Values(6, steps=3), "last", LENGTH),
}


def check_model(build: BuildModel) -> Iterator[Result]:
    """Run every contract of a model, on every kind of task that it accepts.

    Args:
        build: builds a new model for a spec; raises `ConfigError` for a kind of task that the model
            does not accept.

    Yields:
        First the result of building the model; if that passes, one result per contract.
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
    told: set[str] = set()
    for name, contract in CONTRACTS.items():
        outcomes = [(kind, *tried(contract, build, spec)) for kind, spec in taken.items()]
        broken = [(kind, message) for kind, passed, message in outcomes if passed is False]
        if broken:
            kind, message = broken[0]
            yield Result(name, False, "as above" if message in told else f"{kind}: {message}")
            told.add(message)
        elif all(passed is None for _, passed, _ in outcomes):
            yield Result(name, None, outcomes[0][2])
        else:
            yield Result(name, True)


def seeded(build: BuildModel, spec: SequenceSpec, seed: int = 0) -> SequenceModel:
    """Return a new model in evaluation mode, built after `torch.manual_seed(seed)`."""
    torch.manual_seed(seed)
    return as_sequence_model(build(spec)).eval()


def example(spec: SequenceSpec, seed: int = 0) -> Tensor:
    """Return random inputs, `(BATCH, time)` int64 or `(BATCH, time, dim)` float."""
    random = torch.Generator().manual_seed(seed)
    if isinstance(spec.input, Tokens):
        return torch.randint(spec.input.vocab_size, (BATCH, spec.length), generator=random)
    return torch.randn(BATCH, spec.length, spec.input.dim, generator=random)


def run(
    model: SequenceModel, x: Tensor, state: State = None, context: int = 0
) -> tuple[Tensor, State]:
    """Return a model's output and its state.

    Raises:
        ContractViolation: if the model does not return a pair of a tensor and a state.
    """
    try:
        result = model(x, state, context)
    except ConfigError as error:
        raise ContractViolation(str(error)) from error
    if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[0], Tensor):
        raise ContractViolation("forward must return (output, state), the output a tensor")
    return result


def same(a: Tensor, b: Tensor) -> bool:
    """Return True if the outputs are exactly equal; NaN equals NaN."""
    return torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


def difference(a: Tensor, b: Tensor) -> float:
    """Return the largest absolute difference, relative to the largest absolute value of `b`."""
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-30))


def output_shape(build: BuildModel, spec: SequenceSpec) -> None:
    """Require finite outputs: `(batch, out)` for readout `last`, else `(batch, time, out)`."""
    with torch.no_grad():
        output, _ = run(seeded(build, spec), example(spec))
    every = spec.readout == "every"
    expected = (BATCH, spec.length, spec.output_dim) if every else (BATCH, spec.output_dim)
    if output.shape != expected:
        raise ContractViolation(f"the output is {tuple(output.shape)}, not {expected}")
    if not output.isfinite().all():
        raise ContractViolation("the output is not finite")


@torch.no_grad()
def causal(build: BuildModel, spec: SequenceSpec) -> None:
    """Require that changing the input from a step on does not change the outputs before it."""
    if spec.readout == "last":
        raise NotApplicable("it answers at the last step alone")
    model = seeded(build, spec)
    x = example(spec)
    other = example(spec, seed=1)
    before, _ = run(model, x)
    if not before.isfinite().all():
        raise ContractViolation("the output is not finite, so that nothing can be seen to move")
    for start in (1, 2, 7, spec.length // 2, spec.length - 2, spec.length - 1):
        changed = torch.cat([x[:, :start], other[:, start:]], 1)
        after, _ = run(model, changed)
        moved = (after - before)[:, :start].abs().amax((0, 2))
        # Not zero: the same sums may be rounded differently.
        if moved.max() > ROUNDING / 10 * before.abs().max():
            step = int(moved.argmax())
            raise ContractViolation(
                f"it sees the future: the output at step {step} moved by {moved[step]:.1g} when "
                f"the input changed from step {start} on"
            )


def gradients(build: BuildModel, spec: SequenceSpec) -> None:
    """Require a finite gradient, not all zero, for every trainable parameter."""
    model = seeded(build, spec)
    with torch.no_grad():
        for parameter in model.parameters():
            # Perturb the initial weights: a gate initialized to zero blocks gradients behind it.
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    output, _ = run(model, example(spec))
    (output * torch.randn_like(output)).sum().backward()
    weights = model.state_dict(keep_vars=True).items()
    trained = {name: p for name, p in weights if p.requires_grad}
    if not trained:
        raise ContractViolation("it has no parameters to train")
    dead = [name for name, p in trained.items() if p.grad is None or not p.grad.any()]
    if dead:
        raise ContractViolation(f"no gradient reaches {listed(dead)}")
    wild = [n for n, p in trained.items() if p.grad is not None and not p.grad.isfinite().all()]
    if wild:
        raise ContractViolation(f"the gradient is not finite in {listed(wild)}")


@torch.no_grad()
def state_dict(build: BuildModel, spec: SequenceSpec) -> None:
    """Require that a second model that loads the state dict computes the same outputs."""
    model, copy = seeded(build, spec), seeded(build, spec, seed=1)
    copy.load_state_dict(model.state_dict())
    x = example(spec)
    if not same(run(model, x)[0], run(copy, x)[0]):
        raise ContractViolation(
            "a copy with the same state_dict answers differently: some of its weights or buffers "
            "are not registered (a plain list of layers should be an nn.ModuleList)"
        )


@torch.no_grad()
def deterministic(build: BuildModel, spec: SequenceSpec) -> None:
    """Require equal weights for equal seeds, and equal outputs for equal inputs in eval mode.

    A model that writes to its input violates this contract too.
    """
    model, again = seeded(build, spec), seeded(build, spec)
    for (name, a), b in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        if not torch.equal(a, b):
            raise ContractViolation(
                f"built twice after torch.manual_seed(0), {name} starts differently"
            )
    x = example(spec)
    kept = x.clone()
    first = run(model, x)[0].clone()
    if not torch.equal(x, kept):
        raise ContractViolation("it writes to its input")
    if not same(first, run(model, x)[0]):
        raise ContractViolation("in evaluation mode, the same input twice gives different outputs")


@torch.no_grad()
def segments(build: BuildModel, spec: SequenceSpec) -> None:
    """Require that forward passes over segments, with state carried, match one over the whole."""
    model = seeded(build, spec)
    if not model.has_state:
        if model.carry_state:
            raise ContractViolation("carry_state needs has_state = True")
        raise NotApplicable("the model has no state")
    x = example(spec)
    whole, _ = run(model, x)
    state = None
    parts = []
    for segment in x.split([spec.length - 20, 1, 12, 7], 1):
        output, state = run(model, segment, state)
        parts.append(output)
        for tensor in leaves(state):
            if tensor.ndim < 1 or len(tensor) != BATCH:
                raise ContractViolation(
                    f"the first dimension of the state's tensors must be the batch, {BATCH} here; "
                    f"one is {tuple(tensor.shape)}"
                )
    joined = torch.cat(parts, 1) if spec.readout == "every" else parts[-1]
    apart = difference(joined, whole)
    if not apart <= ROUNDING:
        raise ContractViolation(
            f"in segments with the state carried, outputs differ by {apart:.1g} of their size from "
            "one long pass"
        )


@torch.no_grad()
def context(build: BuildModel, spec: SequenceSpec) -> None:
    """Require that a model told to skip a context's outputs leaves the later outputs unchanged."""
    model = seeded(build, spec)
    if not model.skips_context:
        raise NotApplicable("the model does not skip its context")
    if spec.readout == "last":
        raise NotApplicable("it answers at the last step alone")
    if model.has_state:
        raise ContractViolation(
            "it has has_state and skips_context: a state makes the context needless"
        )
    x = example(spec)
    whole, _ = run(model, x)
    for steps in (1, 2, 20, spec.length - 1):
        after, _ = run(model, x, None, steps)
        if after.shape != whole[:, steps:].shape:
            raise ContractViolation(
                f"with a context of {steps} steps the output is {tuple(after.shape)}, not "
                f"{tuple(whole[:, steps:].shape)}"
            )
        apart = difference(after, whole[:, steps:])
        if not apart <= ROUNDING:
            raise ContractViolation(
                f"after a context of {steps} steps, outputs differ by {apart:.1g} of their size "
                "from those without"
            )


def leaves(tree: Any) -> Iterator[Tensor]:
    """Yield the tensors of a state, which may be nested in tuples or lists.

    Raises:
        ContractViolation: if the state holds anything else.
    """
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for branch in tree:
            yield from leaves(branch)
    else:
        raise ContractViolation(
            f"a state is made of tensors in tuples or lists; here is a {type(tree).__name__}"
        )


@torch.no_grad()
def padding(build: BuildModel, spec: SequenceSpec) -> None:
    """Require that padding on the right changes no output of a model that takes lengths."""
    if not seeded(build, spec).takes_lengths:
        raise NotApplicable("it reads sequences of different length one length after the other")
    if spec.readout == "every":
        raise NotApplicable("it answers at every step")
    x = example(spec)
    lengths = torch.tensor([spec.length, 1, spec.length - 20])
    inside = torch.arange(spec.length) < lengths[:, None]
    for readout in ("last", "mean"):
        model = seeded(build, replace(spec, readout=readout))
        rows = zip(x, lengths.tolist(), strict=True)
        alone = torch.cat([run(model, row[None, :end])[0] for row, end in rows])
        for other in (example(spec, seed=1), torch.zeros_like(x)):
            padded = x.where(inside.view(*inside.shape, *[1] * (x.ndim - 2)), other)
            try:
                output, _ = model(padded, None, 0, lengths)
            except TypeError as error:
                raise ContractViolation(f"takes_lengths: {said(error)}") from error
            apart = difference(output, alone)
            if not apart <= ROUNDING:
                raise ContractViolation(
                    f"with readout {readout}, padding on the right changes outputs by "
                    f"{apart:.1g} of their size"
                )


CONTRACTS: dict[str, Callable[[BuildModel, SequenceSpec], None]] = {
    "outputs have the expected shape": output_shape,
    "is causal": causal,
    "every parameter gets a gradient": gradients,
    "the state dict is complete": state_dict,
    "is deterministic for a seed": deterministic,
    "segments with carried state match one pass": segments,
    "skipping the context changes no output": context,
    "padding changes no output": padding,
}
