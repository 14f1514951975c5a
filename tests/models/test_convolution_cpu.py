"""Our causal convolution on a CPU, held to torch's."""

import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from seqbench import compiled
from seqbench.models import convolution_cpu
from seqbench.models.convolution_cpu import ConvolutionRelu

try:
    compiled.library(convolution_cpu.SOURCE)
except compiled.NotCompiled as error:
    pytest.skip(f"nothing was compiled: {error}", allow_module_level=True)


def plain(x, weight, bias, dilation, stride, length):
    """All outputs of a padded convolution, then those that are asked for."""
    padded = F.pad(x.transpose(1, 2), ((weight.shape[2] - 1) * dilation, 0))
    y = F.relu(F.conv1d(padded, weight, bias, dilation=dilation)).transpose(1, 2)
    return y.flip(1)[:, ::stride][:, :length].flip(1)


def tensors(batch, steps, inputs, outputs, taps, dtype=torch.float64):
    return [
        torch.randn(shape, dtype=dtype, requires_grad=True)
        for shape in ((batch, steps, inputs), (outputs, inputs, taps), (outputs,))
    ]


def results(convolve, given, form, weights):
    y = convolve(*given, *form)
    return [y, *torch.autograd.grad((y * weights).sum(), given)]


def assert_close(ours, theirs, error):
    """Largest error, relative to the largest value of each."""
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() <= error * other.abs().max().clamp_min(1e-30)


@settings(deadline=None, max_examples=100)
@given(
    steps=st.integers(1, 200),  # more than what a thread takes at a time
    batch=st.integers(1, 4),
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 40),
    taps=st.integers(1, 6),
    dilation=st.integers(1, 20),
    stride=st.integers(1, 4),
    data=st.data(),
)
def test_values_and_gradients_are_those_of_torch(
    steps, batch, inputs, outputs, taps, dilation, stride, data
):
    length = data.draw(st.integers(1, (steps - 1) // stride + 1))
    torch.manual_seed(steps)
    given_ = tensors(batch, steps, inputs, outputs, taps)
    weights = torch.randn(batch, length, outputs, dtype=torch.float64)
    form = (dilation, stride, length)
    theirs = results(plain, given_, form, weights)
    assert_close(results(ConvolutionRelu.apply, given_, form, weights), theirs, 1e-10)


def bfloat16_results(given_, form, weights):
    """Ours in bfloat16, and in double precision what the same rounded numbers give."""
    x, weight, bias = (value.detach().float() for value in given_)
    ours = results(
        ConvolutionRelu.apply,
        [x.bfloat16().requires_grad_(), weight.requires_grad_(), bias.requires_grad_()],
        form,
        weights.bfloat16(),
    )
    rounded = [x.bfloat16(), weight.bfloat16(), bias]
    doubled = [value.detach().double().requires_grad_() for value in rounded]
    return ours, results(plain, doubled, form, weights.bfloat16().double())


@settings(deadline=None, max_examples=100)
@given(
    steps=st.integers(1, 200),
    batch=st.integers(1, 4),
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 40),
    taps=st.integers(1, 6),
    dilation=st.integers(1, 20),
    stride=st.integers(1, 4),
    data=st.data(),
)
def test_half_precision_rounds_only_what_it_takes_and_gives(
    steps, batch, inputs, outputs, taps, dilation, stride, data
):
    length = data.draw(st.integers(1, (steps - 1) // stride + 1))
    torch.manual_seed(steps)
    given_ = tensors(batch, steps, inputs, outputs, taps, torch.float32)
    weights = torch.randn(batch, length, outputs)
    ours, truth = bfloat16_results(given_, (dilation, stride, length), weights)
    assert [value.dtype for value in ours] == [torch.bfloat16] * 2 + [torch.float32] * 2
    assert_close(ours[:2], truth[:2], 2**-8)
    # Sums are of single precision: a gradient that is masked otherwise must be of an output that
    # is zero but for rounding.
    assert_close(ours[2:], truth[2:], 1e-4)


def test_half_precision_reads_nothing_after_a_step():
    given_ = tensors(2, 30, 7, 18, 3, torch.float32)  # the eighth of a pair would be of the next
    x, weight, bias = (value.detach() for value in given_)
    before = ConvolutionRelu.apply(x.bfloat16(), weight, bias, 2, 1, 30)
    x[:, 20:] = float("nan")
    after = ConvolutionRelu.apply(x.bfloat16(), weight, bias, 2, 1, 30)
    assert torch.equal(before[:, :20], after[:, :20])
    assert after[:, 20:].isnan().all()


def test_numbers_are_rounded_to_bfloat16_as_torch_does(vector_bytes):
    one = torch.eye(16)[..., None]
    # All upper halves of a float with lower ones about the middle; denormal ones may become zero.
    upper = torch.arange(-(2**15), 2**15, dtype=torch.int32)[:, None] << 16
    x = (upper + torch.tensor([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF])).view(torch.float32)
    x = x[x.abs() >= torch.finfo(torch.float32).tiny].reshape(-1)
    x = x[: len(x) // 16 * 16].view(1, -1, 16)
    bias = torch.zeros(16)
    # As sums: of a one, and a bias that is no bfloat16.
    zero = torch.zeros(1, 1, 16, dtype=torch.bfloat16)
    for row in x[0, :: len(x[0]) // 500]:
        y = ConvolutionRelu.apply(zero, one, row, 1, 1, 1)
        assert torch.equal(y[0, 0], row.relu().bfloat16())
    # As weights.
    ones = torch.ones(1, 1, 16, dtype=torch.bfloat16)
    for row in x[0, :: len(x[0]) // 500]:
        y = ConvolutionRelu.apply(ones, torch.diag(row)[..., None], bias, 1, 1, 1)
        assert torch.equal(y[0, 0], row.bfloat16().relu())


def test_single_precision_differs_by_rounding():
    torch.manual_seed(0)
    given_ = tensors(3, 100, 30, 50, 3, torch.float32)
    weights = torch.randn(3, 100, 50)
    doubled = [value.detach().double().requires_grad_() for value in given_]
    truth = results(plain, doubled, (4, 1, 100), weights.double())
    assert_close(results(ConvolutionRelu.apply, given_, (4, 1, 100), weights), truth, 1e-5)


def test_gradients_that_are_long_sums_do_not_round_off():
    torch.manual_seed(0)
    # Inputs and gradients of one sign mostly: sums of 16,000 steps that grow all the way.
    given_ = [value.detach().abs() for value in tensors(8, 2000, 12, 12, 2, torch.float32)]
    weights = torch.rand(8, 2000, 12)
    doubled = [value.double().requires_grad_() for value in given_]
    truth = results(plain, doubled, (1, 1, 2000), weights.double())
    ours = results(
        ConvolutionRelu.apply, [value.requires_grad_() for value in given_], (1, 1, 2000), weights
    )
    assert_close(ours, truth, 2e-6)


@pytest.mark.parametrize("stride", [1, 2])
def test_vectors_of_any_width_give_the_same(vector_bytes, stride):
    assert compiled.library(convolution_cpu.SOURCE).vector_bytes() == vector_bytes
    torch.manual_seed(0)
    given_, form = tensors(2, 90, 7, 21, 3), (2, stride, 40)
    weights = torch.randn(2, 40, 21, dtype=torch.float64)
    theirs = results(plain, given_, form, weights)
    assert_close(results(ConvolutionRelu.apply, given_, form, weights), theirs, 1e-10)
    ours, truth = bfloat16_results(given_, form, weights)
    assert_close(ours[:2], truth[:2], 2**-8)
    assert_close(ours[2:], truth[2:], 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_number_of_threads_gives_the_same_bits(same_bits, dtype):
    (x, *others), form = tensors(3, 300, 20, 20, 5, torch.float32), (3, 2, 140)
    given_ = [x.detach().to(dtype).requires_grad_(), *others]
    weights = torch.randn(3, 140, 20, dtype=dtype)
    same_bits(lambda: results(ConvolutionRelu.apply, given_, form, weights))


def test_memory_in_any_order_is_read_right():
    x, weight, bias = tensors(2, 30, 20, 18, 3)
    turned = [
        x.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_(),
        weight.detach().permute(2, 0, 1).contiguous().permute(1, 2, 0).requires_grad_(),
        bias,
    ]
    weights = torch.randn(18, 2, 30, dtype=x.dtype).permute(1, 2, 0)
    ours = results(ConvolutionRelu.apply, turned, (2, 1, 30), weights)
    assert_close(ours, results(plain, [x, weight, bias], (2, 1, 30), weights), 1e-12)


def test_a_run_that_has_diverged_is_seen():
    x, weight, bias = tensors(2, 30, 20, 18, 3, torch.float32)
    with torch.no_grad():
        x[1, 5, 3] = float("nan")
    y = ConvolutionRelu.apply(x, weight, bias, 1, 1, 30)
    assert y[1, 5:8].isnan().all()
    assert not y[0].isnan().any()
    (grad,) = torch.autograd.grad(y.sum(), weight)
    assert grad.isnan().any()


@pytest.mark.parametrize("in_dims", [(0, 0, 0), (None, 0, 0), (1, 0, None)])
def test_several_weights_at_once_give_what_each_gives(in_dims):
    x, weight, bias = tensors(2, 30, 20, 18, 3)
    torch.manual_seed(0)
    given_ = [
        value.detach() if dim is None else torch.stack([value, 2 * value], dim).detach()
        for value, dim in zip((x, weight, bias), in_dims, strict=True)
    ]
    for value in given_:
        value.requires_grad_()

    def together(*values):
        return torch.vmap(lambda *each: ConvolutionRelu.apply(*each, 2, 1, 30), in_dims)(*values)

    def apart(*values):
        return torch.stack(
            [
                plain(
                    *(
                        value if dim is None else value.select(dim, i)
                        for value, dim in zip(values, in_dims, strict=True)
                    ),
                    2,
                    1,
                    30,
                )
                for i in range(2)
            ]
        )

    weights = torch.randn(2, 2, 30, 18, dtype=x.dtype)
    assert_close(results(together, given_, (), weights), results(apart, given_, (), weights), 1e-10)


def test_it_is_taken_where_it_can_be_and_pays():
    x, weight, _ = tensors(2, 30, 16, 16, 3, torch.float32)
    assert convolution_cpu.pays(x, weight)
    assert not convolution_cpu.pays(x.to("meta"), weight)
    whole_matrices = torch.cpu._is_amx_tile_supported()
    with torch.autocast("cpu", torch.bfloat16):
        assert convolution_cpu.pays(x, weight) is not whole_matrices
        assert convolution_cpu.pays(x.bfloat16(), weight) is not whole_matrices
        assert not convolution_cpu.pays(x, weight.bfloat16())
    with torch.autocast("cpu", torch.float16):
        assert not convolution_cpu.pays(x, weight)
    assert not convolution_cpu.pays(x, weight[:1])  # one output a vector
    assert not convolution_cpu.pays(x.double(), weight)
    assert not convolution_cpu.pays(x[..., :3], weight)


@pytest.mark.parametrize(("batch", "length"), [(0, 30), (2, 0)])
def test_nothing_gives_nothing(batch, length):
    given_ = tensors(batch, 30, 20, 18, 3)
    y = ConvolutionRelu.apply(*given_, 1, 1, length)
    assert y.shape == (batch, length, 18)
    assert all(grad.eq(0).all() for grad in torch.autograd.grad(y.sum(), given_))


def test_a_training_step_is_not_slower_than_torchs():
    given_ = tensors(16, 200, 64, 64, 3, torch.float32)
    steps = {"theirs": plain, "ours": ConvolutionRelu.apply}
    best = dict.fromkeys(steps, float("inf"))
    for _ in range(15):
        for name, step in steps.items():
            begin = time.perf_counter()
            step(*given_, 2, 1, 200).sum().backward()
            best[name] = min(best[name], time.perf_counter() - begin)
    assert best["ours"] < best["theirs"] / 1.1  # 1.6 where nothing else runs
