"""The compiled operators agree with their references on every target of this processor."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import pytest
import torch
from cases import (
    CASES,
    DOUBLE,
    EXAMPLES,
    NONE,
    SEEDS,
    Case,
    assert_close,
    residual_case,
    residual_cases,
    seeded,
)
from hypothesis import given, settings
from torch import Tensor
from torch.nn import functional as F

from seqbench.kernels import BlockShape, BlockWeights, operators, reference
from seqbench.kernels.operators.residual_blocks import blocks_of

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("target")]


@settings(max_examples=100)
@given(CASES)
def test_float64_agrees_to_1e_10_and_float32_to_1e_5(target, case):
    expected = case.results(case.reference)
    if target == "native":
        assert_close(case.results(case.operator), expected, 1e-10)
    # Some drawn gradients are sums of values near 1 that cancel.
    assert_close(case.to(torch.float32).results(case.operator), expected, 1e-5, least=0.1)


@pytest.mark.parametrize("example", EXAMPLES)
def test_float32_gives_the_same_bits_with_any_number_of_threads(same_bits, example):
    case = seeded(EXAMPLES[example]).to(torch.float32)
    same_bits(lambda: case.results(case.operator))


# Residual blocks in bfloat16.


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


@settings(max_examples=40)
@given(SEEDS.flatmap(lambda _: residual_cases(most=1)))
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
def test_values_are_rounded_to_bfloat16_as_in_torch():
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
