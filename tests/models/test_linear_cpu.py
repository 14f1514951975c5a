"""Our linear layer on a CPU, held to torch's."""

import pytest
import torch
from torch.nn import functional as F

from seqbench.models import linear_cpu, vectors
from seqbench.models.linear_cpu import Linear, LinearFunction

if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
    pytest.skip("this torch has no oneDNN", allow_module_level=True)

SHAPES = [((7,), 3), ((5, 3), 4), ((2, 7, 33), 65), ((1, 1, 1), 1), ((3, 130, 96), 200)]


def results(function, x, weight):
    y = function(x, weight)
    return [y, *torch.autograd.grad(y.square().sum(), (x, weight))]


def assert_close(found, expected, error=1e-5):
    """Largest error, relative to the largest value of each."""
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() <= error * other.abs().max()


def inputs_of(shape, outputs):
    torch.manual_seed(0)
    return (
        torch.randn(shape, requires_grad=True),
        torch.randn(outputs, shape[-1], requires_grad=True),
    )


@pytest.mark.parametrize(("shape", "outputs"), SHAPES)
def test_values_and_gradients_are_those_of_torch(shape, outputs):
    x, weight = inputs_of(shape, outputs)
    truth = results(F.linear, *(value.detach().double().requires_grad_() for value in (x, weight)))
    assert_close(results(LinearFunction.apply, x, weight), truth)


def test_memory_in_any_order_is_read_right():
    x, weight = inputs_of((6, 5, 7), 9)
    turned = [value.detach().mT.contiguous().mT.requires_grad_() for value in (x, weight)]
    assert_close(results(LinearFunction.apply, *turned), results(F.linear, x, weight))


def test_under_vmap_each_gives_what_it_gives_alone():
    x, weight = inputs_of((4, 6, 5), 7)
    several = torch.stack([weight, 2 * weight]).detach().requires_grad_()
    found, expected = (
        results(torch.vmap(function, (None, 0)), x, several)
        for function in (LinearFunction.apply, F.linear)
    )
    assert_close(found, expected)


def test_second_derivatives_are_those_of_torch():
    x, weight = inputs_of((4, 5), 3)

    def second(function):
        (slope,) = torch.autograd.grad(function(x, weight).pow(3).sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), (x, weight))

    assert_close(second(LinearFunction.apply), second(F.linear))


@pytest.mark.parametrize("frozen", [0, 1])
def test_what_wants_no_gradient_gets_none(frozen):
    inputs = [value.detach() for value in inputs_of((4, 5), 3)]
    wanted = inputs[1 - frozen].requires_grad_()
    LinearFunction.apply(*inputs).square().sum().backward()
    found, wanted.grad = wanted.grad, None
    F.linear(*inputs).square().sum().backward()
    assert_close([found], [wanted.grad])
    assert inputs[frozen].grad is None


def test_it_is_taken_where_it_can_be_and_pays():
    x, weight = torch.zeros(8, 256, 384), torch.zeros(1024, 384)
    assert linear_cpu.pays(x, weight)
    assert not linear_cpu.pays(x[:1, :1], weight)  # a step of generated text
    assert not linear_cpu.pays(x.double(), weight.double())
    assert not linear_cpu.pays(x, weight.double())
    assert not linear_cpu.pays(x, weight[:, 1:])
    with torch.autocast("cpu", torch.bfloat16):
        assert not linear_cpu.pays(x, weight)
    with vectors.off():
        assert not linear_cpu.pays(x, weight)


def test_a_layer_answers_as_torch_does():
    torch.manual_seed(0)
    layer, x = Linear(384, 1024), torch.randn(8, 64, 384)
    assert linear_cpu.pays(x, layer.weight)
    found = layer(x)
    with vectors.off():
        expected = layer(x)
    assert_close([found], [expected])
    assert layer.bias is None
