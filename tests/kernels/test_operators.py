"""The compiled operators against their references, for each target that this processor can run."""

import itertools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from seqbench.kernels import BlockShape, BlockWeights, operators, reference
from seqbench.kernels.operators.residual_blocks import blocks_of

pytestmark = pytest.mark.usefixtures("target")
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
def residual_cases(draw):
    sizes = [draw(st.integers(1, 7)), draw(st.integers(1, 200)), draw(st.integers(1, 40))]
    shapes, steps = [], sizes[1]  # more steps than a thread takes at a time
    for _ in range(draw(st.integers(1, 3))):
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
LARGE = {
    **{
        f"{kind} {hidden}": partial(recurrent_case, kind, 40, 65, 2, hidden)
        for kind in ("lstm", "gru", "rnn_tanh")
        for hidden in (1, 3, 130, 257)
    },
    "lstm of 1,000 steps": partial(recurrent_case, "lstm", 1000, 3, 2, 17),
    "one channel": partial(residual_case, (2, 1000, 1, 1, 1), 3, [(1, 1, 1000, 1000)]),
    "520 channels": partial(residual_case, (1, 40, 130, 520, 64), 2, [(2, 1, 40, 40)]),
    "65 sequences": partial(residual_case, (65, 20, 24, 24, 24), 8, [(1, 2, 20, 10)]),
    "1,000 steps": partial(residual_case, (2, 1000, 24, 24, 24), 8, [(16, 1, 1000, 900)], 2),
    "1,000 keys": partial(attention_case, 1, 1000, 0, 1, 1, 8, 700),
    "wide rows": partial(rms_norm_case, 2, 65, 520),
    "many values": partial(swiglu_case, 7, 65, 257),
}
examples = pytest.mark.parametrize("example", EXAMPLES)


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


@settings(deadline=None, max_examples=200)
@given(CASES)
def test_float64_agrees_to_1e_10(case):
    assert_close(case.results(case.operator), case.results(case.reference), 1e-10)


@settings(deadline=None, max_examples=60)
@given(CASES)
def test_float32_agrees_to_1e_5(case):
    found = case.to(torch.float32).results(case.operator)
    # Some drawn gradients are sums of values near 1 that cancel.
    assert_close(found, case.results(case.reference), 1e-5, least=0.1)


@pytest.mark.parametrize("example", LARGE)
def test_large_shapes_agree(example):
    case = seeded(LARGE[example])
    expected = case.results(case.reference)
    assert_close(case.results(case.operator), expected, 1e-10)
    assert_close(case.to(torch.float32).results(case.operator), expected, 1e-5)


@examples
def test_any_number_of_threads_gives_the_same_bits(same_bits, example):
    case = seeded(EXAMPLES[example]).to(torch.float32)
    same_bits(lambda: case.results(case.operator))


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn_tanh"])
def test_gradients_that_vanish_stop_at_the_same_step_with_any_number_of_threads(same_bits, kind):
    # Where they end depends on how each thread treats denormal numbers.
    case = seeded(partial(recurrent_case, kind, 500, 7, 2, 33)).to(torch.float32)

    def last_state_alone(*tensors):
        return case.operator(*tensors)[1:]

    torch.set_flush_denormal(True)
    try:
        same_bits(lambda: case.results(last_state_alone))
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn_tanh"])
def test_the_last_state_alone_has_the_gradients_of_torch(kind):
    case = seeded(partial(recurrent_case, kind, 60, 5, 3, 17))
    found, expected = (
        case.results(lambda *x, run=run: run(*x)[1:]) for run in (case.operator, case.reference)
    )
    assert_close(found, expected, 1e-10)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@examples
def test_nan_and_inf_propagate(example, bad):
    case = seeded(EXAMPLES[example]).to(torch.float32)
    case.tensors[0].view(-1)[case.tensors[0].numel() // 2] = bad
    found, expected = case.results(case.operator), case.results(case.reference)
    # Saturated gates and rectifiers hide an infinity; a NaN shows in all that it reaches.
    for one, other in zip(found, expected, strict=True):
        assert other.isfinite().all() or not one.isfinite().all()
    assert torch.equal(found[0].isnan(), expected[0].isnan())


@examples
def test_memory_in_any_order_is_read_right(example):
    case = seeded(EXAMPLES[example])
    expected = case.results(case.operator)

    def permuted(t: Tensor) -> Tensor:
        order = list(reversed(range(t.dim())))
        return t.permute(order).contiguous().permute(order)

    def operator(*tensors: Tensor) -> Sequence[Tensor]:
        return [permuted(y) for y in case.operator(*map(permuted, tensors))]

    assert_close(case.results(operator), expected, 1e-12)


@examples
def test_gradients_can_be_taken_twice_and_leave_their_inputs_unchanged(example):
    case = seeded(EXAMPLES[example])
    wanted = [t.requires_grad_() for i, t in enumerate(case.tensors) if i not in case.fixed]
    wanted = [t for t in wanted if t.numel()]
    outputs = case.operator(*case.tensors)
    first = case.gradients(outputs, wanted, retain_graph=True)
    for one, other in zip(first, case.gradients(outputs, wanted), strict=True):
        assert torch.equal(one, other)


@examples
def test_second_derivatives_are_those_of_the_reference(example):
    case = seeded(EXAMPLES[example])
    wanted = [t.requires_grad_() for i, t in enumerate(case.tensors) if i not in case.fixed]
    wanted = [t for t in wanted if t.numel()]

    @sdpa_kernel(SDPBackend.MATH)  # the one that torch can differentiate twice
    def second(function):
        slopes = case.gradients(function(*case.tensors), wanted, create_graph=True)
        loss = sum(slope.sin().sum() for slope in slopes)
        return torch.autograd.grad(loss, wanted, materialize_grads=True)

    assert_close(second(case.operator), second(case.reference), 1e-9)


@examples
def test_inputs_that_need_no_gradient_get_none(example):
    case = seeded(EXAMPLES[example])
    wanted = [case.tensors[1].requires_grad_()]
    found, expected = (
        case.gradients(run(*case.tensors), wanted) for run in (case.operator, case.reference)
    )
    assert_close(found, expected, 1e-10)
    sum(y.sum() for y in case.operator(*case.tensors)).backward()
    assert all(t.grad is None for t in (case.tensors[0], *case.tensors[2:]))


@examples
def test_under_vmap_each_gives_what_it_gives_alone(example):
    case = seeded(EXAMPLES[example])
    second = case.tensors[1]
    dims = (None, 0, *[None] * (len(case.tensors) - 2))

    both = torch.stack([second, 2 * second]).requires_grad_()

    def results(output):
        return [output, *torch.autograd.grad(output.sin().sum(), both)]

    first, _, *others = case.tensors
    together = torch.vmap(lambda *x: case.operator(*x)[0], dims)(first, both, *others)
    alone = torch.stack([case.reference(first, one, *others)[0] for one in both])
    assert_close(results(together), results(alone), 1e-10)


@examples
def test_the_operator_keeps_the_rules_of_torch(example, target):
    if target != "native":
        pytest.skip("the rules do not depend on the target")
    case = seeded(EXAMPLES[example])
    for i, tensor in enumerate(case.tensors):
        if i not in case.fixed and tensor.numel():
            tensor.requires_grad_()
    torch.library.opcheck(*case.op)


EMPTY = {
    **{kind: partial(recurrent_case, kind, 20, 0, 3, 10) for kind in ("lstm", "gru", "rnn_tanh")},
    "residual_blocks": partial(residual_case, (0, 30, 20, 18, 20), 3, [(1, 1, 30, 30)]),
    "no steps": partial(residual_case, (2, 30, 20, 18, 20), 3, [(1, 1, 0, 0)]),
    "rms_norm": partial(rms_norm_case, 0, 5, 7),
}


@pytest.mark.parametrize("example", EMPTY)
def test_empty_batches_give_empty_outputs_and_zero_gradients(example):
    case = seeded(EMPTY[example])
    output, *others = case.results(case.operator)
    assert output.numel() == 0
    assert all(value.eq(0).all() for value in others)


# Residual blocks: bfloat16, and what only they have.


def rounded(x: Tensor) -> Tensor:
    """Round to bfloat16; the gradient passes unchanged."""
    return x + (x.bfloat16().double() - x).detach()


def rounding_block(
    x: Tensor, w: BlockWeights, shape: BlockShape, norm: Callable[[Tensor], Tensor] = lambda n: n
) -> Tensor:
    """Compute a residual block in float64, with operands of products rounded to bfloat16."""
    y = x
    for magnitude, direction, bias, mask, stride, length in (
        (w.magnitude1, w.direction1, w.bias1, w.mask1, 1, shape.middle),
        (w.magnitude2, w.direction2, w.bias2, w.mask2, shape.stride, shape.length),
    ):
        weight = magnitude * direction / norm(direction.norm(dim=(1, 2), keepdim=True))
        padded = F.pad(rounded(y).transpose(1, 2), ((weight.shape[2] - 1) * shape.dilation, 0))
        y = F.relu(F.conv1d(padded, rounded(weight), bias, dilation=shape.dilation))
        y = reference.drop(last(y.transpose(1, 2), stride, length), mask)
    x = last(x, shape.stride, shape.length)
    if w.project_weight is not None:
        product = F.linear(rounded(x), rounded(w.project_weight.squeeze(2)), w.project_bias)
        x = rounded(product)
    return F.relu(y + x)


def last(x: Tensor, stride: int, length: int) -> Tensor:
    """Return `length` steps, `stride` apart, up to the last."""
    return x.flip(1)[:, ::stride][:, :length].flip(1)


def in_bfloat16(case: Case) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Return results in bfloat16, those of the same rounded numbers in float64, and a scale.

    The scale is what absolute values give, which do not cancel.
    """
    x, *others = case.tensors
    half = replace(case, tensors=[x.bfloat16(), *(t.float() for t in others)])
    exact = half.to(DOUBLE)
    ((_, shape),) = blocks_of(others, case.op[1][2])

    def by_torch(x: Tensor, *others: Tensor, norm=lambda n: n) -> Sequence[Tensor]:
        ((weights, _),) = blocks_of(others, shape)
        return [rounding_block(x, weights, shape, norm)]

    positive = replace(exact, tensors=[t.abs() for t in exact.tensors], positive=True)
    scale = positive.results(partial(by_torch, norm=torch.Tensor.detach))
    # The gradient of a direction has that of its magnitude in it.
    for i in (2, 5):
        magnitude, direction = positive.tensors[i - 1 + (i == 5)], positive.tensors[i + (i == 5)]
        scale[i + 1] += scale[i] * magnitude * direction / direction.pow(2).sum((1, 2), True)
    return half.results(case.operator), exact.results(by_torch), scale


@st.composite
def single_blocks(draw):
    batch, steps, inputs = draw(st.integers(1, 7)), draw(st.integers(1, 200)), 0
    inputs, hidden = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    out = draw(st.sampled_from([inputs, draw(st.integers(1, 40))]))
    stride, middle = draw(st.integers(1, 4)), draw(st.integers(1, steps))
    length = draw(st.integers(1, (middle - 1) // stride + 1))
    shape = (draw(st.integers(1, 20)), stride, middle, length)
    masks = draw(st.sampled_from([0, 2, 3]))
    return residual_case(
        (batch, steps, inputs, hidden, out), draw(st.integers(2, 6)), [shape], masks
    )


@settings(deadline=None, max_examples=60)
@given(SEEDS.flatmap(lambda _: single_blocks()))
def test_bfloat16_rounds_operands_and_sums_in_float32(case):
    found, expected, scale = in_bfloat16(case)
    assert [t.dtype for t in found[:2]] == [torch.bfloat16] * 2
    assert {t.dtype for t in found[2:]} == {torch.float32}
    for one, other, size in zip(found, expected, scale, strict=True):
        assert ((one - other).abs() <= 2**-7 * size).all()


def test_bfloat16_reads_nothing_of_the_next_step():
    # Of seven channels, the eighth of a pair would be of the next step.
    case = seeded(partial(residual_case, (2, 30, 7, 18, 7), 3, [(2, 1, 30, 30)]))
    tensors = [case.tensors[0].bfloat16(), *(t.float() for t in case.tensors[1:])]
    (before,) = case.operator(*tensors)
    tensors[0][:, 20:] = float("nan")
    (after,) = case.operator(*tensors)
    assert torch.equal(before[:, :20], after[:, :20])
    assert after[:, 20:].isnan().all()


def test_bfloat16_gives_the_same_bits_with_any_number_of_threads(same_bits):
    case = seeded(partial(residual_case, (7, 300, 20, 20, 20), 5, [(3, 2, 290, 140)]))
    case.tensors = [case.tensors[0].bfloat16(), *(t.float() for t in case.tensors[1:])]
    same_bits(lambda: case.results(case.operator))


@torch.no_grad()
def test_values_are_rounded_to_bfloat16_as_torch_rounds():
    # The upper halves of floats, with lower halves around the middle.
    upper = torch.arange(-(2**15), 2**15, dtype=torch.int32)[:, None] << 16
    x = (upper + torch.tensor([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF])).view(torch.float32)
    x = x[(x.abs() >= torch.finfo(torch.float32).tiny) & (x.abs() < 3e38)].reshape(-1)
    x = x[: len(x) // 16 * 16].view(-1, 16)[:: len(x) // 16 // 500]
    one, eye = torch.ones(1, 1, 16, dtype=torch.bfloat16), torch.eye(16)[..., None]
    ones, zeros = torch.ones(16, 1, 1), torch.zeros(16)

    def first_convolution(x, magnitude, bias):
        tensors = [magnitude, eye, bias, NONE] * 2 + [NONE] * 2
        return operators.residual_blocks(x, tensors, [1, 1, 1, 1], True)[1][0, 0, :16]

    for row in x:
        assert torch.equal(first_convolution(0 * one, ones, row), row.relu().bfloat16())
        as_weight = first_convolution(one, row[:, None, None], zeros)
        assert torch.equal(as_weight, row.bfloat16().relu())


def test_long_sums_do_not_round_off():
    # Values of one sign mostly: sums of 16,000 steps that grow.
    case = seeded(partial(residual_case, (8, 2000, 12, 12, 12), 2, [(1, 1, 2000, 2000)]))
    case = replace(case, tensors=[t.abs() for t in case.tensors], positive=True)
    found = case.to(torch.float32).results(case.operator)
    assert_close(found, case.results(case.reference), 2e-6)


def test_blocks_before_the_first_that_needs_gradients_are_left_out():
    sizes = (2, 60, 16, 16, 16, 16, 16)
    case = seeded(partial(residual_case, sizes, 3, [(1, 2, 60, 30), (1, 2, 30, 15)]))
    expected = case.results(case.operator)[-6:]
    wanted = [t.requires_grad_() for t in case.tensors[11:] if t.numel()]
    found = case.gradients(case.operator(*case.tensors), wanted)
    assert_close(found, expected, 0)


def fastest(steps: dict[str, Callable[[], object]], times: int = 15) -> dict[str, float]:
    best = dict.fromkeys(steps, float("inf"))
    for _ in range(times):
        for name, step in steps.items():
            begin = time.perf_counter()
            step()
            best[name] = min(best[name], time.perf_counter() - begin)
    return best


@pytest.mark.parametrize(
    ("make", "ratio"),
    [
        (partial(recurrent_case, "gru", 100, 8, 2, 32), 1.5),
        (partial(recurrent_case, "rnn_tanh", 100, 8, 2, 32), 1.5),
        (partial(residual_case, (8, 600, 24, 24, 24), 3, [(2, 1, 600, 600)]), 1.0),
    ],
)
def test_a_training_step_is_faster_than_torchs(target, make, ratio):
    if target != "native" or os.environ.get("CXX"):
        pytest.skip("narrow vectors lose to the libraries that torch calls")
    case = seeded(make).to(torch.float32)
    best = fastest(
        {
            "torch": lambda: case.results(case.reference),
            "compiled": lambda: case.results(case.operator),
        }
    )
    assert best["torch"] / best["compiled"] > ratio


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn_tanh"])
def test_backward_ends_where_gradients_vanish(kind):
    case = seeded(partial(recurrent_case, kind, 1000, 8, 2, 32)).to(torch.float32)
    for tensor in case.tensors:
        tensor.requires_grad_()
    output, *state = case.operator(*case.tensors)
    x = case.tensors[0]
    torch.set_flush_denormal(True)
    try:
        best = fastest(
            {
                "last": lambda: torch.autograd.grad(state[0].sum(), x, retain_graph=True),
                "all": lambda: torch.autograd.grad(output.sum(), x, retain_graph=True),
            },
            times=5,
        )
    finally:
        torch.set_flush_denormal(False)
    assert best["last"] < best["all"] / 1.5
