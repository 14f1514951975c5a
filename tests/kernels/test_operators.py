"""Tests of the compiled operators and their derivatives on the CPU of this machine."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import pytest
import torch
from cases import (
    EXAMPLES,
    assert_close,
    attention_case,
    recurrent_case,
    residual_case,
    rms_norm_case,
    seeded,
    swiglu_case,
)
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

pytestmark = pytest.mark.usefixtures("native")

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


@pytest.mark.parametrize("example", LARGE)
def test_large_shapes_match_the_reference(example):
    case = seeded(LARGE[example])
    expected = case.results(case.reference)
    assert_close(case.results(case.operator), expected, 1e-10)
    assert_close(case.to(torch.float32).results(case.operator), expected, 1e-5)


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn_tanh"])
def test_backward_stops_at_the_same_step_with_any_number_of_threads(same_bits, kind):
    # Backward stops where gradients are zero. Each thread must flush denormal numbers alike.
    case = seeded(partial(recurrent_case, kind, 500, 7, 2, 33)).to(torch.float32)

    def last_state_alone(*tensors):
        return case.operator(*tensors)[1:]

    torch.set_flush_denormal(True)
    try:
        same_bits(lambda: case.results(last_state_alone))
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn_tanh"])
def test_gradients_of_only_the_last_state_match_the_reference(kind):
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
    # Saturated gates and ReLU can turn an infinity into a finite number. A NaN always propagates.
    for one, other in zip(found, expected, strict=True):
        assert other.isfinite().all() or not one.isfinite().all()
    assert torch.equal(found[0].isnan(), expected[0].isnan())


@examples
def test_non_contiguous_tensors_give_the_same_results(example):
    case = seeded(EXAMPLES[example])
    expected = case.results(case.operator)

    def permuted(t: Tensor) -> Tensor:
        order = list(reversed(range(t.dim())))
        return t.permute(order).contiguous().permute(order)

    def operator(*tensors: Tensor) -> Sequence[Tensor]:
        return [permuted(y) for y in case.operator(*map(permuted, tensors))]

    assert_close(case.results(operator), expected, 1e-12)


@examples
def test_a_second_backward_pass_gives_the_same_gradients(example):
    case = seeded(EXAMPLES[example])
    wanted = [t.requires_grad_() for i, t in enumerate(case.tensors) if i not in case.fixed]
    wanted = [t for t in wanted if t.numel()]
    outputs = case.operator(*case.tensors)
    first = case.gradients(outputs, wanted, retain_graph=True)
    for one, other in zip(first, case.gradients(outputs, wanted), strict=True):
        assert torch.equal(one, other)


@examples
def test_second_derivatives_match_the_reference(example):
    case = seeded(EXAMPLES[example])
    wanted = [t.requires_grad_() for i, t in enumerate(case.tensors) if i not in case.fixed]
    wanted = [t for t in wanted if t.numel()]

    @sdpa_kernel(SDPBackend.MATH)  # the only backend with second derivatives
    def second(function):
        slopes = case.gradients(function(*case.tensors), wanted, create_graph=True)
        loss = sum(slope.sin().sum() for slope in slopes)
        return torch.autograd.grad(loss, wanted, materialize_grads=True)

    assert_close(second(case.operator), second(case.reference), 1e-9)


@examples
def test_inputs_that_do_not_require_grad_get_no_gradient(example):
    case = seeded(EXAMPLES[example])
    wanted = [case.tensors[1].requires_grad_()]
    found, expected = (
        case.gradients(run(*case.tensors), wanted) for run in (case.operator, case.reference)
    )
    assert_close(found, expected, 1e-10)
    sum(y.sum() for y in case.operator(*case.tensors)).backward()
    assert all(t.grad is None for t in (case.tensors[0], *case.tensors[2:]))


@examples
def test_vmap_matches_a_loop_over_the_reference(example):
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
def test_operators_pass_opcheck(example):
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


def test_long_sums_are_accurate_in_float32():
    # Positive values, so that the terms of sums over 16,000 steps do not cancel.
    case = seeded(partial(residual_case, (8, 2000, 12, 12, 12), 2, [(1, 1, 2000, 2000)]))
    case = replace(case, tensors=[t.abs() for t in case.tensors], positive=True)
    found = case.to(torch.float32).results(case.operator)
    assert_close(found, case.results(case.reference), 2e-6)


def test_gradients_are_the_same_if_the_first_blocks_need_none():
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
@pytest.mark.skipif(
    bool(os.environ.get("CXX")), reason="kernels for narrow SIMD vectors can be slower than torch"
)
def test_a_training_step_is_faster_than_the_reference(make, ratio):
    case = seeded(make).to(torch.float32)
    steps: dict[str, Callable[[], object]] = {
        "torch": lambda: case.results(case.reference),
        "compiled": lambda: case.results(case.operator),
    }
    found = []
    for _ in range(6):  # other processes may slow down some rounds
        best = fastest(steps)
        found.append(best["torch"] / best["compiled"])
        if found[-1] > ratio:
            return
    raise AssertionError(found)


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn_tanh"])
def test_backward_stops_early_where_gradients_vanish(kind):
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
