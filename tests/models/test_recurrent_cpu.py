"""Our recurrent layers on a CPU, held to torch's."""

import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from seqbench import compiled
from seqbench.models import recurrent_cpu
from seqbench.models.vectors import whole

KINDS = [nn.LSTM, nn.GRU, nn.RNN]

try:
    compiled.library(recurrent_cpu.SOURCE)
except compiled.NotCompiled as error:
    pytest.skip(f"nothing was compiled: {error}", allow_module_level=True)


def state_of(kind, batch, width, dtype=torch.float64):
    return tuple(
        torch.randn(batch, width, dtype=dtype, requires_grad=True)
        for _ in range(2 if kind is nn.LSTM else 1)
    )


def by_torch(layer, x, state):
    stacked = tuple(part[None] for part in state)
    states, after = layer(x, stacked if len(stacked) == 2 else stacked[0])
    return states, tuple(part[0] for part in (after if len(stacked) == 2 else (after,)))


def results(run, layer, x, state, read, weights):
    """All that comes out of a layer, and all gradients of a loss."""
    states, after = run(layer, x, state)
    loss = states.new_zeros(())
    if read != "after":
        loss = loss + (states * weights).sum()
    if read != "states":
        loss = loss + sum(part.square().sum() for part in after)
    inputs = [x, *state, *layer.parameters()]
    return [states, *after, *torch.autograd.grad(loss, inputs, materialize_grads=True)]


def assert_close(ours, theirs, error):
    """Largest error, relative to the largest value of each."""
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() <= error * other.abs().max().clamp_min(1e-30)


def make(kind, steps, batch, dim, width, dtype=torch.float64):
    layer = kind(dim, width, batch_first=True, dtype=dtype)
    x = torch.randn(batch, steps, dim, dtype=dtype, requires_grad=True)
    return layer, x, state_of(kind, batch, width, dtype)


@settings(deadline=None, max_examples=60)
@given(
    kind=st.sampled_from(KINDS),
    steps=st.integers(1, 30),
    batch=st.integers(1, 20),
    dim=st.integers(1, 40),
    width=st.integers(1, 70),
    read=st.sampled_from(["states", "after", "both"]),
    seed=st.integers(0, 9),
)
def test_values_and_gradients_are_those_of_torch(kind, steps, batch, dim, width, read, seed):
    torch.manual_seed(seed)
    layer, x, state = make(kind, steps, batch, dim, width)
    weights = torch.randn(batch, steps, width, dtype=x.dtype)
    theirs = results(by_torch, layer, x, state, read, weights)
    assert_close(results(recurrent_cpu.run, layer, x, state, read, weights), theirs, 1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_single_precision_is_as_near_to_double_precision_as_torchs(kind):
    torch.manual_seed(0)
    layer, x, state = make(kind, 100, 8, 3, 50, torch.float32)
    weights = torch.randn(8, 100, 50)
    exact = kind(3, 50, batch_first=True, dtype=torch.float64)
    exact.load_state_dict(layer.state_dict())
    doubled = [part.detach().double().requires_grad_() for part in (x, *state)]
    truth = results(by_torch, exact, doubled[0], tuple(doubled[1:]), "both", weights.double())
    assert_close(results(recurrent_cpu.run, layer, x, state, "both", weights), truth, 1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_of_any_width_give_the_same(vector_bytes, kind):
    assert compiled.library(recurrent_cpu.SOURCE).vector_bytes() == vector_bytes
    torch.manual_seed(0)
    layer, x, state = make(kind, 7, 5, 6, 21)
    weights = torch.randn(5, 7, 21, dtype=x.dtype)
    theirs = results(by_torch, layer, x, state, "both", weights)
    assert_close(results(recurrent_cpu.run, layer, x, state, "both", weights), theirs, 1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_threads_gives_the_same_bits(same_bits, kind):
    # Gradients that fade: where they end hangs on how each thread treats denormal numbers.
    layer, x, state = make(kind, 500, 7, 2, 33, torch.float32)

    def compute():
        states, after = recurrent_cpu.run(layer, x, state)
        loss = sum(part.sum() for part in after)
        return [states, *after, *torch.autograd.grad(loss, [x, *state])]

    torch.set_flush_denormal(True)
    try:
        same_bits(compute)
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_trained_gives_the_same_bits_and_keeps_no_cells(kind):
    layer, x, state = make(kind, 20, 4, 3, 10)
    trained = recurrent_cpu.run(layer, x, state)
    with torch.no_grad():
        evaluated = recurrent_cpu.run(layer, x, state)
    for one, other in zip((trained[0], *trained[1]), (evaluated[0], *evaluated[1]), strict=True):
        assert torch.equal(one, other)
        assert not other.requires_grad


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_state_it_begins_at_zeros(kind):
    layer, x, state = make(kind, 5, 2, 3, 10)
    zeros = tuple(torch.zeros_like(part) for part in state)
    assert torch.equal(recurrent_cpu.run(layer, x, None)[0], recurrent_cpu.run(layer, x, zeros)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_memory_in_any_order_is_read_right(kind):
    layer, x, state = make(kind, 9, 4, 3, 10)
    turned = x.detach().permute(2, 0, 1).contiguous().permute(1, 2, 0).requires_grad_()
    weights = torch.randn(10, 4, 9, dtype=x.dtype).permute(1, 2, 0)  # so are its gradients
    theirs = results(recurrent_cpu.run, layer, x, state, "both", weights.contiguous())
    assert_close(results(recurrent_cpu.run, layer, turned, state, "both", weights), theirs, 1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_way_back_can_be_gone_twice_and_leaves_what_it_was_given(kind):
    width = 2 * whole(
        1, recurrent_cpu.SOURCE, torch.float64
    )  # whole vectors, which would need no copy
    layer, x, state = make(kind, 9, 4, 3, width)
    _, after = recurrent_cpu.run(layer, x, state)
    given = [torch.randn_like(part) for part in after]
    before = [part.clone() for part in given]
    inputs = [x, *state, *layer.parameters()]
    first = torch.autograd.grad(after, inputs, given, retain_graph=True)
    second = torch.autograd.grad(after, inputs, given)
    for one, other in zip([*first, *given], [*second, *before], strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_has_diverged_is_seen(kind, bad):
    layer, x, state = make(kind, 20, 4, 3, 10, torch.float32)
    with torch.no_grad():
        x[1, 5] = bad
        layer.weight_hh_l0[0, 0] = float("nan")
    states, _ = recurrent_cpu.run(layer, x, state)
    assert states[1, 6:].isnan().any()
    gradients = torch.autograd.grad(states.sum(), list(layer.parameters()))
    assert any(grad.isnan().any() for grad in gradients)


@pytest.mark.parametrize("kind", KINDS)
def test_no_rows_give_no_rows(kind):
    layer, x, _ = make(kind, 20, 4, 3, 10)
    states, _ = recurrent_cpu.run(layer, x[:0], None)
    assert states.shape == (0, 20, 10)
    gradients = torch.autograd.grad(states.sum(), list(layer.parameters()))
    assert all(grad.eq(0).all() for grad in gradients)


def test_it_is_taken_where_it_can_be_and_pays():
    x = torch.zeros(8, 100, 3)
    for kind in KINDS:
        layer = kind(3, 20, batch_first=True)
        assert recurrent_cpu.pays(layer, x)
        assert not recurrent_cpu.pays(layer, x[:, :4])
        assert not recurrent_cpu.pays(layer, x.bfloat16())
        assert not recurrent_cpu.pays(layer, x.to("meta"))
        with torch.autocast("cpu", torch.bfloat16):
            assert not recurrent_cpu.pays(layer, x)
        assert not recurrent_cpu.pays(layer, x.double())
        assert not recurrent_cpu.pays(layer, x[..., :2])
    # One row of a wide layer reads all weights for little work; torch's LSTM reads them faster.
    assert not recurrent_cpu.pays(nn.LSTM(3, 500, batch_first=True), x[:1])


def fastest(steps, times=15):
    best = dict.fromkeys(steps, float("inf"))
    for _ in range(times):
        for name, step in steps.items():
            begin = time.perf_counter()
            step()
            best[name] = min(best[name], time.perf_counter() - begin)
    return best


@pytest.mark.parametrize("kind", [nn.GRU, nn.RNN])
def test_a_training_step_is_faster_than_torchs(kind):
    layer, x, state = make(kind, 100, 8, 2, 32, torch.float32)
    best = fastest(
        {
            "theirs": lambda: by_torch(layer, x, state)[0].sum().backward(),
            "ours": lambda: recurrent_cpu.run(layer, x, state)[0].sum().backward(),
        }
    )
    assert best["ours"] < best["theirs"] / 1.5  # 5 where nothing else runs


@pytest.mark.parametrize("kind", KINDS)
def test_the_way_back_ends_where_the_gradient_does(kind):
    # A state that is forgotten at once, and one that lasts.
    layer, x, state = make(kind, 1000, 8, 2, 32, torch.float32)
    loss = [part.sum() for part in recurrent_cpu.run(layer, x, state)[1]]
    states = recurrent_cpu.run(layer, x, state)[0].sum()
    torch.set_flush_denormal(True)
    try:
        best = fastest(
            {
                "to the end": lambda: torch.autograd.grad(loss, x, retain_graph=True),
                "all the way": lambda: torch.autograd.grad(states, x, retain_graph=True),
            },
            times=5,
        )
    finally:
        torch.set_flush_denormal(False)
    assert best["to the end"] < best["all the way"] / 1.5
