"""The public functions: which of compiled code and PyTorch they take, and that both agree."""

import contextlib
import resource
from pathlib import Path

import pytest
import torch
from commands import forked
from torch.func import functional_call, grad, hessian, jvp, vmap

from seqbench import kernels
from seqbench.kernels import BlockShape, BlockWeights, build, reference, torch_private

COMPILED = kernels.available()
needs_compiler = pytest.mark.skipif(not COMPILED, reason="nothing was compiled")


def recurrent_inputs(kind="lstm", batch=8, time=100, dim=3, hidden=20):
    torch.manual_seed(0)
    gates = {"lstm": 4, "gru": 3, "rnn_tanh": 1}[kind]
    shapes = [(gates * hidden, dim), (gates * hidden, hidden), (gates * hidden,), (gates * hidden,)]
    return torch.randn(batch, time, dim), tuple(torch.randn(s) * hidden**-0.5 for s in shapes)


def block(inputs=16, hidden=16, out=16, taps=3):
    torch.manual_seed(0)
    project = (None, None) if inputs == out else (torch.randn(out, inputs, 1), torch.randn(out))
    return BlockWeights(
        *(
            1 + torch.rand(hidden, 1, 1),
            torch.randn(hidden, inputs, taps),
            torch.randn(hidden),
            None,
        ),
        *(1 + torch.rand(out, 1, 1), torch.randn(out, hidden, taps), torch.randn(out), None),
        *project,
    )


def used(function, *args):
    """Return the result and the names of the kernels that ran."""
    with kernels.recording() as names:
        return function(*args), names


def lstm(x, w_ih, w_hh, b_ih, b_hh):
    return kernels.recurrent("lstm", x, (w_ih, w_hh, b_ih, b_hh), None)[0]


def gru(x, w_ih, w_hh, b_ih, b_hh):
    return kernels.recurrent("gru", x, (w_ih, w_hh, b_ih, b_hh), None)[0]


def tcn(x, *tensors):
    weights = BlockWeights(*tensors[:3], None, *tensors[3:], None, None, None)
    return kernels.residual_blocks(x, [weights], [BlockShape(2, 1, 40, 40)])


def attention(q, k, v):
    angles = torch.arange(len(q[0]) * q.shape[3] // 2, device=q.device).view(len(q[0]), -1)
    cos, sin = angles.cos(), angles.sin()
    return kernels.attention(q, k, v, torch.cat([cos, cos], 1), torch.cat([-sin, sin], 1), 50)


def swiglu(gate, up):
    return kernels.swiglu(gate, up)


def rms_norm(x, weight):
    return kernels.rms_norm(x, weight, 1e-5)


def tensors_of(function):
    torch.manual_seed(0)
    if function in (lstm, gru):
        x, weights = recurrent_inputs(function.__name__)
        return [x, *weights]
    if function is tcn:
        w = block()
        return [torch.randn(2, 40, 16), *w[:3], *w[4:7]]
    if function is attention:
        return [torch.randn(8, 64, 4, 16), torch.randn(8, 64, 2, 16), torch.randn(8, 64, 2, 16)]
    if function is swiglu:
        return [torch.randn(8, 64, 512), torch.randn(8, 64, 512)]
    return [torch.randn(8, 64, 64), torch.randn(64)]


FUNCTIONS = [lstm, gru, tcn, attention, swiglu, rms_norm]
SOURCES = dict(
    zip(
        FUNCTIONS,
        ["recurrent", "recurrent", "residual_block", "attention", "pointwise", "pointwise"],
        strict=True,
    )
)
functions = pytest.mark.parametrize("function", FUNCTIONS)


@functions
def test_compiled_code_runs_and_agrees_with_pytorch(function):
    tensors = tensors_of(function)
    found, names = used(function, *tensors)
    assert names == ({SOURCES[function]} if COMPILED else set())
    with kernels.disabled():
        expected, names = used(function, *tensors)
    assert names == set()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@functions
def test_without_a_compiler_pytorch_runs(monkeypatch, function):
    monkeypatch.setenv("CXX", "false")
    build.compiled.cache_clear()
    try:
        assert "false failed" in kernels.unavailable_reason()
        assert not kernels.available()
        assert used(function, *tensors_of(function))[1] == set()
    finally:
        build.compiled.cache_clear()


@functions
def test_other_dtypes_and_devices_take_pytorch(function):
    tensors = tensors_of(function)
    assert used(function, *[t.bfloat16() for t in tensors])[1] == set()
    assert used(function, *[t.to("meta") for t in tensors])[1] == set()
    with contextlib.suppress(RuntimeError):  # where PyTorch does not promote dtypes
        assert used(function, tensors[0], *[t.double() for t in tensors[1:]])[1] == set()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@functions
def test_every_function_trains_under_autocast(function, dtype):
    tensors = [t.requires_grad_() for t in tensors_of(function)]
    exact = function(*tensors)
    with torch.autocast("cpu", dtype):
        found = function(*tensors)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found.float(), exact, rtol=0.1, atol=0.1 * exact.abs().max().item())
    gradients = torch.autograd.grad(found.float().sum(), tensors)
    assert all(torch.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn_tanh"])
def test_recurrent_layers_compute_in_float32_under_autocast(kind):
    x, weights = recurrent_inputs(kind)
    with torch.autocast("cpu", torch.bfloat16):
        found, state = kernels.recurrent(kind, x.bfloat16(), weights, None)
        _, state = kernels.recurrent(kind, x.bfloat16(), weights, state)
    expected, after = kernels.recurrent(kind, x.bfloat16().float(), weights, None)
    assert torch.equal(found, expected)
    assert torch.equal(
        state[0], kernels.recurrent(kind, x.bfloat16().float(), weights, after)[1][0]
    )


@needs_compiler
def test_residual_blocks_multiply_in_bfloat16_under_autocast():
    x, weights, shape = torch.randn(2, 40, 16), block(), BlockShape(1, 1, 40, 40)
    with torch.autocast("cpu", torch.bfloat16):
        y, names = used(kernels.residual_blocks, x, [weights], [shape])
    assert y.dtype == torch.bfloat16
    assert names == (set() if torch_private.has_bf16_tiles() else {"residual_block"})
    with torch.autocast("cpu", torch.float16):
        assert used(kernels.residual_blocks, x, [weights], [shape])[1] == set()


@needs_compiler
def test_narrow_blocks_take_pytorch_unless_wide_ones_outweigh_them():
    x, shape = torch.randn(2, 40, 16), BlockShape(1, 1, 40, 40)
    narrow = block(hidden=1)
    assert used(kernels.residual_blocks, x, [narrow], [shape])[1] == set()
    assert used(kernels.residual_blocks, x, [block(), block(), narrow], [shape] * 3)[1]


@needs_compiler
def test_small_inputs_take_pytorch(monkeypatch):
    x, weights = recurrent_inputs()
    assert used(kernels.recurrent, "lstm", x[:, :4], weights, None)[1] == set()
    # One row of a wide layer reads all weights for little work.
    x, weights = recurrent_inputs(batch=1, hidden=500)
    assert used(kernels.recurrent, "lstm", x, weights, None)[1] == set()
    for function in (attention, swiglu, rms_norm):
        first, *others = tensors_of(function)
        if function is not attention:
            others = [t[:1, :1] if t.dim() == 3 else t for t in others]
            assert used(function, first[:1, :1], *others)[1] == set()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 49)
        assert used(attention, *tensors_of(attention))[1] == set()


@pytest.mark.parametrize("window", [2**63 - 1, 2**64 + 1])
@pytest.mark.parametrize("steps", [1, 64])
def test_a_window_larger_than_all_keys_is_no_limit(window, steps):
    q, k, v = tensors_of(attention)
    cos, sin = torch.randn(2, 64, 16)
    found = kernels.attention(q[:, :steps], k, v, cos, sin, window)
    torch.testing.assert_close(found, kernels.attention(q[:, :steps], k, v, cos, sin, 64))


def test_attention_of_the_reference_is_the_formula():
    q, k, v = (t.double() for t in tensors_of(attention))
    q = q[:, -40:]
    angles = torch.randn(64, 8, dtype=torch.float64)
    cos = torch.cat([angles.cos()] * 2, 1)
    sin = torch.cat([-angles.sin(), angles.sin()], 1)

    def turned(x, cos, sin):
        return x * cos[:, None] + x.roll(8, -1) * sin[:, None]

    scores = torch.einsum(
        "bihd,bjhd->bhij",
        turned(q, cos[24:], sin[24:]),
        turned(k, cos, sin).repeat_interleave(2, 2),
    )
    ago = torch.arange(24, 64)[:, None] - torch.arange(64)
    weights = (scores / 4).masked_fill((ago < 0) | (ago >= 20), -torch.inf).softmax(-1)
    expected = torch.einsum("bhij,bjhd->bihd", weights, v.repeat_interleave(2, 2))
    torch.testing.assert_close(reference.attention(q, k, v, cos, sin, 20), expected)


@needs_compiler
def test_linear_takes_onednn_for_large_products_in_float32():
    torch.manual_seed(0)
    x, weight = torch.randn(8, 256, 384), torch.randn(1024, 384)
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        run = torch_private.onednn_linear
        patch.setattr(torch_private, "onednn_linear", lambda *a: calls.append(1) or run(*a))
        found = kernels.linear(x, weight)
        if torch_private.has_onednn_linear():
            assert calls
        calls.clear()
        kernels.linear(x[:1, :1], weight)  # a step of generated text
        kernels.linear(x.double(), weight.double())
        with torch.autocast("cpu", torch.bfloat16):
            kernels.linear(x, weight)
        with kernels.disabled():
            expected = kernels.linear(x, weight)
        assert not calls
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


# Torch's transforms.


@functions
def test_torch_compile_runs_the_operators(function):
    tensors = [t.requires_grad_() for t in tensors_of(function)]
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    output, names = used(compiled, *tensors)
    assert names == ({SOURCES[function]} if COMPILED else set())
    expected = function(*tensors)
    torch.testing.assert_close(output, expected)
    for one, other in zip(
        torch.autograd.grad(output.sin().sum(), tensors),
        torch.autograd.grad(expected.sin().sum(), tensors),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("function", [tcn, attention, swiglu, rms_norm])
def test_an_exported_graph_needs_no_operator_of_seqbench(function):
    class Module(torch.nn.Module):
        def forward(self, *tensors):
            return function(*tensors)

    tensors = tensors_of(function)
    program = torch.export.export(Module(), tuple(tensors))
    assert "seqbench" not in str(program.graph)
    torch.testing.assert_close(program.module()(*tensors), function(*tensors), rtol=1e-4, atol=1e-4)


def scalar(function):
    return lambda *tensors: function(*tensors).sin().sum()


@functions
def test_grad_of_torch_func_takes_pytorch(function):
    tensors = tensors_of(function)
    found, names = used(grad(scalar(function), 1), *tensors)
    assert names == set()
    tensors[1].requires_grad_()
    (expected,) = torch.autograd.grad(scalar(function)(*tensors), tensors[1])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("function", [tcn, swiglu, rms_norm])
def test_forward_mode_takes_pytorch(function):
    tensors = [t.double() for t in tensors_of(function)]
    tangents = [torch.randn_like(t) for t in tensors]
    (_, found), names = used(jvp, function, tuple(tensors), tuple(tangents))
    assert names == set()
    near = [
        function(*(t + e * d for t, d in zip(tensors, tangents, strict=True)))
        for e in (1e-6, -1e-6)
    ]
    torch.testing.assert_close(found, (near[0] - near[1]) / 2e-6, rtol=1e-4, atol=1e-4)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(tensors[0], tangents[0])
        assert used(function, dual, *tensors[1:])[1] == set()


def test_hessians_take_pytorch():
    x = torch.randn(4, 4, dtype=torch.float64)
    gate = torch.randn(512, 512, dtype=torch.float64)
    found = hessian(lambda x: kernels.swiglu(gate * x.sum(), gate).sum())(x)
    assert torch.isfinite(found).all()


@needs_compiler
def test_vmap_runs_the_operators():
    layer = torch.nn.Linear(64, 64)
    stacked = torch.stack([layer.weight, 2 * layer.weight])

    def model(weight):
        x = functional_call(layer, {"weight": weight}, (torch.ones(64, 64, 64),))
        return kernels.swiglu(x, x)

    found, names = used(vmap(model), stacked)
    assert names == {"pointwise"}
    torch.testing.assert_close(found, torch.stack([model(weight) for weight in stacked]))


def test_recording_and_disabling_are_of_one_context():
    with kernels.recording() as outer, kernels.recording() as inner:
        swiglu(*tensors_of(swiglu))
    assert outer == set()
    assert inner == ({"pointwise"} if COMPILED else set())
    with contextlib.suppress(ValueError), kernels.disabled():
        raise ValueError
    assert used(swiglu, *tensors_of(swiglu))[1] == inner


def run_out_of_memory():
    # Address space for the tensors, but not for the copies of the keys.
    q, k = torch.zeros(1, 64, 4, 64), torch.zeros(1, 2**20, 4, 64)
    cos, sin = torch.zeros(2, 2**20, 64)
    build.library("attention", torch.float32)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + 2**28
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with pytest.raises(RuntimeError, match="can't allocate memory") as error:
        kernels.attention(q, k, k, cos, sin, 64)
    assert "\n" not in str(error.value)


@needs_compiler
def test_running_out_of_memory_is_an_exception_of_one_line():
    process = forked(run_out_of_memory)
    process.join()
    assert process.exitcode == 0


def test_states_and_tables_of_another_shape_are_refused():
    x, weights = recurrent_inputs("gru")
    with pytest.raises(RuntimeError):
        kernels.recurrent("gru", x, weights, (torch.zeros(3, 20),))
    with pytest.raises((RuntimeError, ValueError)):
        kernels.recurrent("gru", x, weights, (torch.zeros(8, 20, dtype=torch.float64),))
    with pytest.raises(RuntimeError):
        kernels.recurrent("gru", x, (*weights[:3], weights[3][:-1]), None)
    q, k, v = tensors_of(attention)
    with pytest.raises(RuntimeError):
        kernels.attention(q, k, v, torch.zeros(3, 16), torch.zeros(3, 16), 64)
