"""Operators with their references and tensors of random shapes, for the tests of the kernels."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from seqbench.kernels import operators, reference
from seqbench.kernels.operators.residual_blocks import blocks_of

DOUBLE = torch.float64
NONE = torch.empty(0)


@dataclass
class Case:
    """An operator, its reference, and tensors for both.

    Attributes:
        operator: of the tensors; returns as many outputs as the reference, and perhaps more.
        reference: of the tensors; returns a list.
        tensors: all inputs that are tensors.
        fixed: indices of those that have no gradient.
        op: the operator of torch and its arguments, for `torch.library.opcheck`.
        positive: take gradients of a combination with positive weights.
    """

    operator: Callable[..., Sequence[Tensor]]
    reference: Callable[..., Sequence[Tensor]]
    tensors: list[Tensor]
    fixed: tuple[int, ...] = ()
    op: tuple = ()
    positive: bool = False

    def to(self, dtype: torch.dtype) -> "Case":
        return replace(self, tensors=[t.to(dtype) for t in self.tensors])

    def results(self, function: Callable[..., Sequence[Tensor]]) -> list[Tensor]:
        """Return the outputs that the reference has, and all gradients of a random combination."""
        given = [t.detach().clone() for t in self.tensors]
        wanted = [
            t.requires_grad_() for i, t in enumerate(given) if i not in self.fixed and t.numel()
        ]
        outputs = function(*given)
        return [*outputs, *self.gradients(outputs, wanted)]

    def gradients(self, outputs: Sequence[Tensor], wanted: Sequence[Tensor], **options):
        generator = torch.Generator().manual_seed(1)
        d = [torch.randn(y.shape, generator=generator, dtype=DOUBLE).to(y.dtype) for y in outputs]
        d = [g.abs() for g in d] if self.positive else d
        pairs = [(y, g) for y, g in zip(outputs, d, strict=True) if y.requires_grad]
        ys, ds = zip(*pairs, strict=True)
        return torch.autograd.grad(ys, wanted, ds, materialize_grads=True, **options)


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=DOUBLE)


def recurrent_case(kind: str, steps: int, batch: int, dim: int, hidden: int) -> Case:
    gates = {"lstm": 4, "gru": 3, "rnn_tanh": 1}[kind]
    shapes = [(gates * hidden, dim), (gates * hidden, hidden), (gates * hidden,), (gates * hidden,)]
    states = 2 if kind == "lstm" else 1
    weights = [(2 * torch.rand(shape, dtype=DOUBLE) - 1) * hidden**-0.5 for shape in shapes]
    tensors = [drawn(steps, batch, dim), *weights, *(drawn(batch, hidden) for _ in range(states))]

    def operator(x: Tensor, *others: Tensor) -> Sequence[Tensor]:
        state = [*others[4:], None][:2]
        return operators.recurrent(kind, x, *others[:4], *state, True)[: 1 + states]

    def by_torch(x: Tensor, *others: Tensor) -> Sequence[Tensor]:
        output, after = reference.recurrent(kind, x.transpose(0, 1), others[:4], others[4:])
        return [output.transpose(0, 1), *after]

    op = (kind, *tensors, *[None] * (2 - states), True)
    return Case(operator, by_torch, tensors, op=(torch.ops.seqbench.recurrent.default, op))


def residual_case(
    sizes: Sequence[int], taps: int, shapes: Sequence[tuple[int, int, int, int]], masks: int = 0
) -> Case:
    """Return blocks of `sizes`: batch, steps, inputs, and of each block both widths.

    Args:
        sizes: as above.
        taps: of all convolutions.
        shapes: of each block.
        masks: dimensions of dropout masks; 0: no dropout.
    """
    batch, steps, inputs, *widths = sizes
    tensors = [drawn(batch, steps, inputs)]
    for shape, hidden, out in zip(shapes, widths[::2], widths[1::2], strict=True):
        for before, after, length in ((inputs, hidden, shape[2]), (hidden, out, shape[3])):
            mask = (batch, length, after) if masks == 3 else (batch, after)
            tensors += [1 + drawn(after, 1, 1).abs(), drawn(after, before, taps), drawn(after)]
            tensors += [2 * torch.randint(0, 2, mask).double() if masks else NONE]
        tensors += [drawn(out, inputs, 1), drawn(out)] if inputs != out else [NONE, NONE]
        inputs = out
    flat = list(itertools.chain(*shapes))

    def operator(x: Tensor, *others: Tensor) -> Sequence[Tensor]:
        return operators.residual_blocks(x, list(others), flat, True)[:1]

    def by_torch(x: Tensor, *others: Tensor) -> Sequence[Tensor]:
        for weights, shape in blocks_of(others, flat):
            x = reference.residual_block(x, weights, shape)
        return [x]

    fixed = tuple(i for i in range(1, len(tensors)) if i % 10 in (4, 8))
    op = (torch.ops.seqbench.residual_blocks.default, (tensors[0], tensors[1:], flat, True))
    return Case(operator, by_torch, tensors, fixed, op)


def attention_case(
    batch: int, steps: int, before: int, groups: int, shared_by: int, half: int, window: int
) -> Case:
    keys = steps + before
    angles = drawn(keys, half)
    cos, sin = angles.cos(), angles.sin()
    tensors = [
        drawn(batch, steps, groups * shared_by, 2 * half),
        drawn(batch, keys, groups, 2 * half),
        drawn(batch, keys, groups, 2 * half),
        torch.cat([cos, cos], 1),
        torch.cat([-sin, sin], 1),
    ]
    window = min(window, keys)
    return Case(
        lambda *x: operators.attention(*x, window)[:1],
        lambda *x: [reference.attention(*x, window)],
        tensors,
        (3, 4),
        (torch.ops.seqbench.attention.default, (*tensors, window)),
    )


def swiglu_case(*shape: int) -> Case:
    tensors = [drawn(*shape), drawn(*shape)]
    op = (torch.ops.seqbench.swiglu.default, tuple(tensors))
    return Case(
        lambda *x: [operators.swiglu(*x)], lambda *x: [reference.swiglu(*x)], tensors, op=op
    )


def rms_norm_case(*shape: int) -> Case:
    tensors = [drawn(*shape), drawn(shape[-1])]
    return Case(
        lambda *x: operators.rms_norm(*x, 1e-5)[:1],
        lambda *x: [reference.rms_norm(*x, 1e-5)],
        tensors,
        op=(torch.ops.seqbench.rms_norm.default, (*tensors, 1e-5)),
    )


def linear_case(*shape: int, out: int) -> Case:
    tensors = [drawn(*shape).float(), drawn(out, shape[-1]).float()]
    op = (torch.ops.seqbench.linear.default, tuple(tensors))
    return Case(lambda *x: [operators.linear(*x)], lambda *x: [F.linear(*x)], tensors, op=op)


@st.composite
def recurrent_cases(draw):
    kind = draw(st.sampled_from(["lstm", "gru", "rnn_tanh"]))
    hidden = draw(st.sampled_from([1, 3, 8, 16, 17, 33]) | st.integers(1, 70))
    return recurrent_case(
        kind, draw(st.integers(1, 30)), draw(st.integers(1, 20)), draw(st.integers(1, 40)), hidden
    )


@st.composite
def residual_cases(draw, most=3):
    """Draw up to `most` blocks, of more steps than a thread takes at a time."""
    sizes = [draw(st.integers(1, 7)), draw(st.integers(1, 200)), draw(st.integers(1, 40))]
    shapes, steps = [], sizes[1]
    for _ in range(draw(st.integers(1, most))):
        stride, middle = draw(st.integers(1, 4)), draw(st.integers(1, steps))
        steps = draw(st.integers(1, (middle - 1) // stride + 1))
        shapes.append((draw(st.integers(1, 20)), stride, middle, steps))
        outputs = draw(st.sampled_from([sizes[-1], draw(st.integers(1, 40))]))
        sizes += [draw(st.integers(1, 40)), outputs]
    return residual_case(sizes, draw(st.integers(2, 6)), shapes, draw(st.sampled_from([0, 2, 3])))


@st.composite
def attention_cases(draw):
    return attention_case(
        draw(st.integers(1, 2)),
        draw(st.integers(1, 140)),
        draw(st.sampled_from([0, 0, 1, 7, 40])),
        draw(st.integers(1, 2)),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 20)),
        draw(st.sampled_from([1, 2, 5, 33, 1000])),
    )


@st.composite
def pointwise_cases(draw):
    make = draw(st.sampled_from([swiglu_case, rms_norm_case]))
    # Of a row of one value, the gradient of RMSNorm is what cancels.
    rows, dim = draw(st.integers(1, 70)), draw(st.integers(3, 70))
    return make(draw(st.integers(1, 3)), rows, dim)


SEEDS = st.integers(0, 2**16).map(torch.manual_seed)
CASES = SEEDS.flatmap(
    lambda _: st.one_of(recurrent_cases(), residual_cases(), attention_cases(), pointwise_cases())
)
# One of each operator, with tails of vectors and blocks.
EXAMPLES = {
    "lstm": partial(recurrent_case, "lstm", 20, 5, 3, 17),
    "gru": partial(recurrent_case, "gru", 20, 5, 3, 17),
    "rnn_tanh": partial(recurrent_case, "rnn_tanh", 20, 5, 3, 17),
    "residual_blocks": partial(
        residual_case, (3, 90, 21, 7, 25, 25, 25), 3, [(2, 2, 85, 40), (1, 1, 40, 31)], 3
    ),
    "attention": partial(attention_case, 2, 45, 5, 2, 2, 9, 20),
    "swiglu": partial(swiglu_case, 3, 70, 21),
    "rms_norm": partial(rms_norm_case, 3, 70, 21),
}


def assert_close(
    found: Sequence[Tensor], expected: Sequence[Tensor], error: float, least: float = 1e-3
) -> None:
    """Assert that the largest error of each, relative to its largest value, is at most `error`.

    A largest value below `least` counts as `least`.
    """
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        if one.numel():
            assert (one - other).abs().max() <= error * other.abs().max().clamp_min(least)


def seeded(make: Callable[[], Case]) -> Case:
    torch.manual_seed(0)
    return make()
