"""Our causal attention on a CPU, held to the formula's."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbench import compiled
from seqbench.models import attention_cpu, vectors
from seqbench.models.attention_cpu import AttentionFunction
from seqbench.models.llama import Attention

try:
    compiled.library(attention_cpu.SOURCE)
except compiled.NotCompiled as error:
    pytest.skip(f"nothing was compiled: {error}", allow_module_level=True)


def angles_of(seen, half, dtype):
    angles = torch.randn(seen, half, dtype=dtype)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([cos, cos], 1), torch.cat([-sin, sin], 1)


def turned(x, cos, sin):
    """Of `(batch, time, heads, dim)`."""
    halves = x.roll(x.shape[-1] // 2, -1)
    return x * cos[:, None] + halves * sin[:, None]


def plain(q, k, v, cos, sin, context):
    time, seen, shared_by = q.shape[1], k.shape[1], q.shape[2] // k.shape[2]
    q, k = turned(q, cos[seen - time :], sin[seen - time :]), turned(k, cos, sin)
    k, v = k.repeat_interleave(shared_by, 2), v.repeat_interleave(shared_by, 2)
    scores = torch.einsum("bihd,bjhd->bhij", q, k) / q.shape[-1] ** 0.5
    ago = torch.arange(seen - time, seen)[:, None] - torch.arange(seen)
    scores = scores.masked_fill((ago < 0) | (ago >= context), -torch.inf)
    return torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), v)


def ours(*inputs):
    return AttentionFunction.apply(*inputs)[0]


def results(function, inputs, weights):
    y = function(*inputs)
    return [y, *torch.autograd.grad((y * weights).sum(), inputs[:3])]


def assert_close(found, expected, error):
    """Largest error, relative to the largest value of each."""
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() <= error * other.abs().max().clamp_min(1e-3)


def inputs_of(batch, time, seen, groups, shared_by, half, context, dtype=torch.float64):
    torch.manual_seed(0)
    q = torch.randn(batch, time, groups * shared_by, 2 * half, dtype=dtype)
    k, v = torch.randn(2, batch, seen, groups, 2 * half, dtype=dtype)
    tensors = [x.requires_grad_() for x in (q, k, v)]
    return [*tensors, *angles_of(seen, half, dtype), context], torch.randn_like(q)


@settings(deadline=None, max_examples=80)
@given(
    batch=st.integers(1, 2),
    time=st.integers(1, 70),
    before=st.sampled_from([0, 0, 1, 7, 40]),
    groups=st.integers(1, 2),
    shared_by=st.integers(1, 2),
    half=st.integers(1, 20),
    context=st.sampled_from([1, 2, 5, 33, 1000]),
)
def test_values_and_gradients_are_those_of_the_formula(
    batch, time, before, groups, shared_by, half, context
):
    inputs, weights = inputs_of(batch, time, time + before, groups, shared_by, half, context)
    assert_close(results(ours, inputs, weights), results(plain, inputs, weights), 1e-10)


@pytest.mark.parametrize("scale", [1, 30])  # at 30 nearly all of a row's weight is at one key
def test_single_precision_differs_by_rounding(scale):
    inputs, weights = inputs_of(2, 200, 230, 2, 2, 16, 100, torch.float32)
    inputs[0] = (scale * inputs[0]).detach().requires_grad_()
    doubled = [x.detach().double().requires_grad_() for x in inputs[:3]]
    doubled += [x.double() for x in inputs[3:5]]
    truth = results(plain, [*doubled, 100], weights.double())
    assert_close(results(ours, inputs, weights), truth, 1e-5)


def test_vectors_of_any_width_give_the_same(vector_bytes):
    assert compiled.library(attention_cpu.SOURCE).vector_bytes() == vector_bytes
    inputs, weights = inputs_of(1, 45, 50, 1, 2, 9, 20)
    assert_close(results(ours, inputs, weights), results(plain, inputs, weights), 1e-10)


def test_any_number_of_threads_gives_the_same_bits(same_bits):
    inputs, weights = inputs_of(3, 40, 40, 2, 2, 8, 1000, torch.float32)
    same_bits(lambda: results(ours, inputs, weights))


def test_memory_in_any_order_is_read_right():
    inputs, _ = inputs_of(2, 9, 9, 2, 1, 4, 1000)
    heads_first = [x.detach().transpose(1, 2).contiguous().transpose(1, 2) for x in inputs[:3]]
    turned_inputs = [*(x.requires_grad_() for x in heads_first), *inputs[3:]]
    one = torch.ones((), dtype=torch.float64).expand_as(inputs[0])  # so is the gradient of a sum
    assert_close(results(ours, turned_inputs, one), results(plain, inputs, one), 1e-12)


def test_under_vmap_each_gives_what_it_gives_alone():
    inputs, weights = inputs_of(2, 9, 9, 2, 1, 4, 1000)
    several = [torch.stack([x, 2 * x]).detach().requires_grad_() for x in inputs[:3]]
    dims = (0, 0, 0, None, None, None)
    found, expected = (
        results(torch.vmap(function, dims), [*several, *inputs[3:]], weights)
        for function in (ours, plain)
    )
    assert_close(found, expected, 1e-10)


def test_a_run_that_has_diverged_is_seen():
    inputs, weights = inputs_of(1, 40, 40, 1, 1, 4, 8)
    with torch.no_grad():
        inputs[1][0, 20, 0, 3] = float("nan")
    found, expected = (results(function, inputs, weights) for function in (ours, plain))
    assert torch.equal(found[0].isnan(), expected[0].isnan())
    assert found[0].isnan().any()
    assert not found[0].isnan().all()
    for gradient in found[1:]:
        assert gradient.isnan().any()


def test_a_key_that_is_not_seen_yet_changes_nothing():
    inputs, _ = inputs_of(1, 70, 70, 1, 1, 8, 1000)
    before = ours(*inputs)
    later = [x.detach().clone() for x in inputs[:3]]
    for x in later:
        x[:, 50:] = 1e30
    assert torch.equal(before[:, :50], ours(*later, *inputs[3:])[:, :50])


@pytest.mark.parametrize("context", [2**63 - 1, 2**64 + 1])
def test_a_context_beyond_all_keys_is_no_limit(context):
    inputs, weights = inputs_of(1, 40, 40, 1, 1, 4, 40)
    unlimited = [*inputs[:5], context]
    assert_close(results(ours, unlimited, weights), results(ours, inputs, weights), 0)


def test_it_is_taken_where_it_can_be_and_pays(monkeypatch):
    x = torch.zeros(8, 256, 6, 64)
    assert attention_cpu.pays(x, x, x)
    assert not attention_cpu.pays(x[:1, :1], x, x)  # a step of generated text
    assert not attention_cpu.pays(x.bfloat16(), x.bfloat16(), x.bfloat16())
    assert not attention_cpu.pays(x, x, x.double())
    with monkeypatch.context() as many:
        many.setattr(torch, "get_num_threads", lambda: 49)
        assert not attention_cpu.pays(x, x, x)
    with torch.autocast("cpu", torch.bfloat16):
        assert not attention_cpu.pays(x, x, x)


@pytest.mark.parametrize("before", [0, 30])
@pytest.mark.parametrize("last_only", [False, True])
@pytest.mark.parametrize("context", [16, 100])
def test_a_layer_answers_as_by_torch(monkeypatch, before, last_only, context):
    torch.manual_seed(0)
    monkeypatch.setattr(attention_cpu, "pays", lambda *_: not vectors.switched_off)
    layer = Attention(48, 4, 2, 100.0, context).double()
    cache = None
    if before:
        _, cache = layer(torch.randn(2, before, 48, dtype=torch.float64), None, False)
        cache = tuple(x.detach() for x in cache)
    x = torch.randn(2, 50, 48, dtype=torch.float64, requires_grad=True)
    found = results_of(layer, x, cache, last_only)
    with vectors.off():
        expected = results_of(layer, x, cache, last_only)
    assert_close(found, expected, 1e-10)


def test_second_derivatives_are_refused():
    inputs, _ = inputs_of(1, 5, 5, 1, 1, 2, 1000)
    with pytest.raises(RuntimeError, match="no second derivatives"):
        torch.autograd.grad(ours(*inputs).sum(), inputs[0], create_graph=True)


def results_of(layer, x, cache, last_only):
    y, after = layer(x, cache, last_only)
    return [y, *after, *torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])]
