"""Our SwiGLU and RMSNorm on a CPU, held to torch's."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from seqbench import compiled
from seqbench.models import llama_cpu
from seqbench.models.llama_cpu import PIECE, RmsNormFunction, SwigluFunction

try:
    compiled.library(llama_cpu.SOURCE)
except compiled.NotCompiled as error:
    pytest.skip(f"nothing was compiled: {error}", allow_module_level=True)


def swiglu(gate, up):
    return SwigluFunction.apply(gate, up)


def plain_swiglu(gate, up):
    return F.silu(gate) * up


def rms_norm(x, weight):
    return RmsNormFunction.apply(x, weight, 1e-5)[0]


def plain_rms_norm(x, weight):
    return F.rms_norm(x, weight.shape, weight, 1e-5)


# Ours, the plain way, and of how many dimensions the second input is.
PAIRS = [(swiglu, plain_swiglu, 3), (rms_norm, plain_rms_norm, 1)]


def results(function, inputs, weights):
    y = function(*inputs)
    return [y, *torch.autograd.grad((y * weights).sum(), inputs)]


def assert_close(ours, theirs, error):
    """Largest error, relative to the largest value of each."""
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() <= error * other.abs().max().clamp_min(1e-30)


def inputs_of(shape, dims, dtype=torch.float64):
    return [
        torch.randn(part, dtype=dtype, requires_grad=True)
        for part in (shape, shape[len(shape) - dims :])
    ]


@pytest.mark.parametrize(("ours", "plain", "dims"), PAIRS)
@settings(deadline=None, max_examples=40)
@given(
    batch=st.integers(1, 3),
    steps=st.integers(1, PIECE + 3),
    dim=st.integers(1, 70),
    seed=st.just(0),
)
def test_values_and_gradients_are_those_of_torch(ours, plain, dims, batch, steps, dim, seed):
    torch.manual_seed(seed)
    inputs = inputs_of((batch, steps, dim), dims)
    weights = torch.randn(batch, steps, dim, dtype=torch.float64)
    assert_close(results(ours, inputs, weights), results(plain, inputs, weights), 1e-10)


@pytest.mark.parametrize(("ours", "plain", "dims"), PAIRS)
def test_single_precision_differs_by_rounding(ours, plain, dims):
    torch.manual_seed(0)
    inputs = inputs_of((4, 50, 100), dims, torch.float32)
    weights = torch.randn(4, 50, 100)
    doubled = [value.detach().double().requires_grad_() for value in inputs]
    truth = results(plain, doubled, weights.double())
    assert_close(results(ours, inputs, weights), truth, 1e-6)


@pytest.mark.parametrize(("ours", "plain", "dims"), PAIRS)
def test_vectors_of_any_width_give_the_same(vector_bytes, ours, plain, dims):
    assert compiled.library(llama_cpu.SOURCE).vector_bytes() == vector_bytes
    torch.manual_seed(0)
    inputs = inputs_of((2, 9, 21), dims)
    weights = torch.randn(2, 9, 21, dtype=torch.float64)
    assert_close(results(ours, inputs, weights), results(plain, inputs, weights), 1e-10)


@pytest.mark.parametrize(("ours", "plain", "dims"), PAIRS)
def test_any_number_of_threads_gives_the_same_bits(same_bits, ours, plain, dims):
    inputs = inputs_of((3, 100, 33), dims, torch.float32)
    weights = torch.randn(3, 100, 33)
    same_bits(lambda: results(ours, inputs, weights))


@pytest.mark.parametrize(("ours", "plain", "dims"), PAIRS)
def test_memory_in_any_order_is_read_right(ours, plain, dims):
    inputs = inputs_of((4, 6, 5), dims)
    turned = [inputs[0].detach().mT.contiguous().mT.requires_grad_(), *inputs[1:]]
    one = torch.ones((), dtype=torch.float64).expand(4, 6, 5)  # so is the gradient of a sum
    assert_close(results(ours, turned, one), results(plain, inputs, one), 1e-12)


@pytest.mark.parametrize(("ours", "plain", "dims"), PAIRS)
def test_under_vmap_each_gives_what_it_gives_alone(ours, plain, dims):
    torch.manual_seed(0)
    inputs = inputs_of((4, 6, 5), dims)
    stacked = torch.stack([inputs[1], 2 * inputs[1]]).detach().requires_grad_()
    weights = torch.randn(2, 4, 6, 5, dtype=torch.float64)
    together = torch.vmap(ours, (None, 0))
    theirs = results(torch.vmap(plain, (None, 0)), [inputs[0], stacked], weights)
    assert_close(results(together, [inputs[0], stacked], weights), theirs, 1e-10)


@pytest.mark.parametrize(("ours", "plain", "dims"), PAIRS)
def test_a_run_that_has_diverged_is_seen(ours, plain, dims):
    inputs = inputs_of((2, 3, 20), dims, torch.float32)
    with torch.no_grad():
        inputs[0][0, 1, 4] = float("nan")
    for found, expected in zip(
        results(ours, inputs, torch.ones(2, 3, 20)),
        results(plain, inputs, torch.ones(2, 3, 20)),
        strict=True,
    ):
        assert torch.equal(found.isnan(), expected.isnan())


def test_it_is_taken_where_it_can_be_and_pays():
    x = torch.zeros(8, 256, 384)
    assert llama_cpu.pays(x, x)
    assert not llama_cpu.pays(x[:1, :1], x)  # a step of generated text
    assert not llama_cpu.pays(x.bfloat16(), x.bfloat16())
    assert not llama_cpu.pays(x, x.double())
    assert not llama_cpu.pays(x, x[..., :1])
    with torch.autocast("cpu", torch.bfloat16):
        assert not llama_cpu.pays(x, x)


def test_second_derivatives_are_refused():
    x = torch.randn(3, 4, requires_grad=True)
    with pytest.raises(RuntimeError, match="no second derivatives"):
        torch.autograd.grad(swiglu(x, x).sum(), x, create_graph=True)
