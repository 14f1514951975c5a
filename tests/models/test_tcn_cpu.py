"""Our residual blocks of a TCN on a CPU, held to torch's."""

import copy
import time
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from seqbench import compiled
from seqbench.models import tcn_cpu
from seqbench.models.tcn_cpu import Form, ResidualBlocks

try:
    compiled.library(tcn_cpu.SOURCE)
except compiled.NotCompiled as error:
    pytest.skip(f"nothing was compiled: {error}", allow_module_level=True)


def convolved(x, weight, bias, mask, dilation, stride, length):
    """All outputs of a padded convolution, then those that are asked for."""
    padded = F.pad(x.transpose(1, 2), ((weight.shape[2] - 1) * dilation, 0))
    y = F.relu(F.conv1d(padded, weight, bias, dilation=dilation)).transpose(1, 2)
    y = at_end(y, stride, length)
    if mask is not None:
        y = y * (mask if mask.dim() == 3 else mask[:, None])
    return y


def at_end(x, stride, length):
    """So many steps, `stride` apart, the last one included."""
    return x.flip(1)[:, ::stride][:, :length].flip(1)


def plain(x, forms, *weights, rounded=lambda x: x, norm=lambda x: x):
    """Blocks in the words of the paper, with what is done to what they round and to norms."""
    for i, form in enumerate(forms):
        first, second, project = (weights[10 * i :][part] for part in PARTS)
        y = x
        for layer, stride, length in ((first, 1, form.middle), (second, *form[1::2])):
            magnitude, direction, bias, mask = layer
            weight = magnitude * direction / norm(direction.norm(dim=(1, 2), keepdim=True))
            y = convolved(rounded(y), rounded(weight), bias, mask, form.dilation, stride, length)
        x = at_end(x, form.stride, form.length)
        if project[0] is not None:
            weight, bias = project
            x = rounded(F.linear(rounded(x), rounded(weight.squeeze(2)), bias))
        x = F.relu(y + x)
    return x


# Both convolutions and the projection, among a block's weights.
PARTS = (slice(4), slice(4, 8), slice(8, 10))


def ours(x, forms, *weights):
    return ResidualBlocks.apply(x, forms, True, *weights)[0]


class Case:
    """Blocks' input, and a gradient of their output.

    Args:
        sizes: batch, steps, inputs, and of each block both widths; what goes into a block is
            projected if that and the second differ.
        taps: of all convolutions.
        forms: of each block.
        masks: how many dimensions those of dropout have; 0: there is no dropout.
    """

    def __init__(self, sizes, taps, *forms, masks=0, dtype=torch.float64):
        torch.manual_seed(sum(sizes))
        batch, steps, inputs, *widths = sizes
        self.forms = [Form(*form) for form in forms]

        def drawn(*shape):
            return torch.randn(shape, dtype=dtype)

        def mask(width, length):
            shape = (batch, length, width)[3 - masks :] if masks == 3 else (batch, width)
            return 2 * torch.randint(0, 2, shape).to(dtype) if masks else None

        self.tensors = [drawn(batch, steps, inputs)]
        for form, hidden, outputs in zip(self.forms, widths[::2], widths[1::2], strict=True):
            self.tensors += [
                1 + drawn(hidden, 1, 1).abs(),
                drawn(hidden, inputs, taps),
                drawn(hidden),
                mask(hidden, form.middle),
                1 + drawn(outputs, 1, 1).abs(),
                drawn(outputs, hidden, taps),
                drawn(outputs),
                mask(outputs, form.length),
                *([drawn(outputs, inputs, 1), drawn(outputs)] if inputs != outputs else [None] * 2),
            ]
            inputs = outputs
        self.d_y = drawn(batch, self.forms[-1].length, outputs)

    def to(self, weights, values):
        """The same with other dtypes of weights, and of what goes in and comes back."""
        found = copy.copy(self)
        found.tensors = [
            None if value is None else value.to(weights if i else values)
            for i, value in enumerate(self.tensors)
        ]
        found.d_y = self.d_y.to(values)
        return found

    def absolute(self):
        """The same with all values positive."""
        found = copy.copy(self)
        found.tensors = [None if value is None else value.abs() for value in self.tensors]
        found.d_y = self.d_y.abs()
        return found

    def results(self, blocks):
        """Output and gradients of all but the masks."""
        given = [None if value is None else value.detach() for value in self.tensors]
        wanted = [
            value.requires_grad_()
            for i, value in enumerate(given)
            if value is not None and i % 10 not in (4, 8)
        ]
        y = blocks(given[0], self.forms, *given[1:])
        return [y, *torch.autograd.grad((y * self.d_y).sum(), wanted)]


def assert_close(ours, theirs, error):
    """Largest error, relative to the largest value of each."""
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() <= error * other.abs().max().clamp_min(1e-30)


@st.composite
def cases(draw, most=3):
    sizes = [draw(st.integers(1, 7)), draw(st.integers(1, 200)), draw(st.integers(1, 40))]
    forms, steps = [], sizes[1]  # more than what a thread takes at a time
    for _ in range(draw(st.integers(1, most))):
        stride, middle = draw(st.integers(1, 4)), draw(st.integers(1, steps))
        steps = draw(st.integers(1, (middle - 1) // stride + 1))
        forms.append((draw(st.integers(1, 20)), stride, middle, steps))
        outputs = draw(st.sampled_from([sizes[-1], draw(st.integers(1, 40))]))
        sizes += [draw(st.integers(1, 40)), outputs]
    masks = draw(st.sampled_from([0, 2, 3]))
    return Case(sizes, draw(st.integers(2, 6)), *forms, masks=masks)


@settings(deadline=None, max_examples=150)
@given(cases())
def test_values_and_gradients_are_those_of_torch(case):
    assert_close(case.results(ours), case.results(plain), 1e-10)


@settings(deadline=None, max_examples=100)
@given(cases(most=1))
def test_half_precision_rounds_what_goes_in_and_comes_out(case):
    assert_close_in_half_precision(case)


def in_half_precision(case):
    """Ours in bfloat16, and what the same rounded numbers give in double precision."""

    half = case.to(torch.float32, torch.bfloat16)
    return half.results(ours), half.to(*[torch.float64] * 2).results(
        partial(plain, rounded=rounded)
    )


def assert_close_in_half_precision(case):
    found, truth = in_half_precision(case)
    assert {value.dtype for value in found[:2]} == {torch.bfloat16}
    assert {value.dtype for value in found[2:]} == {torch.float32}
    # Beside sums of absolute values, which do not cancel.
    large = case.absolute()
    sizes = large.results(partial(plain, norm=torch.Tensor.detach))
    for i, layer in ((2, large.tensors[1:5]), (5, large.tensors[5:9])):
        magnitude, direction, *_ = layer
        sizes[i + 1] += sizes[i] * magnitude * direction / direction.pow(2).sum((1, 2), True)
    for one, other, size in zip(found, truth, sizes, strict=True):
        assert ((one - other).abs() <= 2**-7 * size).all()


def rounded(x):
    """To bfloat16; on the way back nothing."""
    return x + (x.bfloat16().double() - x).detach()


def test_half_precision_reads_nothing_after_a_step():
    # Of seven channels the eighth of a pair would be of the next step.
    case = Case((2, 30, 7, 18, 7), 3, (2, 1, 30, 30)).to(torch.float32, torch.bfloat16)
    x, *others = case.tensors
    before = ours(x, case.forms, *others)
    x[:, 20:] = float("nan")
    after = ours(x, case.forms, *others)
    assert torch.equal(before[:, :20], after[:, :20])
    assert after[:, 20:].isnan().all()


@torch.no_grad()
def test_numbers_are_rounded_to_bfloat16_as_torch_does(vector_bytes):
    # All upper halves of a float with lower ones about the middle; denormal ones may become zero.
    upper = torch.arange(-(2**15), 2**15, dtype=torch.int32)[:, None] << 16
    x = (upper + torch.tensor([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF])).view(torch.float32)
    x = x[(x.abs() >= torch.finfo(torch.float32).tiny) & (x.abs() < 3e38)].reshape(-1)
    x = x[: len(x) // 16 * 16].view(-1, 16)[:: len(x) // 16 // 500]
    one, eye = torch.ones(1, 1, 16, dtype=torch.bfloat16), torch.eye(16)[..., None]
    ones, zeros = torch.ones(16, 1, 1), torch.zeros(16)

    def after_first(x, magnitude, bias):
        layers = (magnitude, eye, bias, None) * 2
        return ResidualBlocks.forward(x, [Form(1, 1, 1, 1)], True, *layers, None, None)[1][0, 0]

    for row in x:
        assert torch.equal(after_first(0 * one, ones, row), row.relu().bfloat16())
        as_weight = after_first(one, row[:, None, None], zeros)
        assert torch.equal(as_weight, row.bfloat16().relu())


@pytest.mark.parametrize("values", [torch.float32, torch.bfloat16])
def test_blocks_together_are_blocks_one_after_another(values):
    forms = (1, 2, 90, 45), (1, 1, 45, 40), (3, 1, 40, 31)
    case = Case((2, 90, 5, 25, 25, 25, 25, 18, 30), 3, *forms, masks=2).to(torch.float32, values)

    def one_by_one(x, forms, *weights):
        for i, form in enumerate(forms):
            x = ours(x, [form], *weights[10 * i : 10 * i + 10])
        return x

    for together, apart in zip(case.results(ours), case.results(one_by_one), strict=True):
        assert torch.equal(together, apart)


def test_single_precision_differs_by_rounding():
    case = Case((3, 100, 30, 50, 30), 3, (4, 1, 100, 100))
    assert_close(case.to(*[torch.float32] * 2).results(ours), case.results(plain), 1e-5)


def test_gradients_that_are_long_sums_do_not_round_off():
    # Inputs and gradients of one sign mostly: sums of 16,000 steps that grow all the way.
    case = Case((8, 2000, 12, 12, 12), 2, (1, 1, 2000, 2000))
    case = case.absolute().to(*[torch.float32] * 2)
    truth = case.to(*[torch.float64] * 2).results(plain)
    assert_close(case.results(ours), truth, 2e-6)


def test_gradients_of_half_precision_are_sums_of_single_precision():
    case = Case((8, 2000, 12, 12, 12), 2, (1, 1, 2000, 2000)).absolute()
    found, truth = in_half_precision(case)
    assert_close(found[5:], truth[5:], 1e-5)


@pytest.mark.parametrize("masks", [0, 2, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_vectors_of_any_width_give_the_same(vector_bytes, stride, masks):
    assert compiled.library(tcn_cpu.SOURCE).vector_bytes() == vector_bytes
    case = Case((2, 90, 21, 7, 21), 3, (2, stride, 85, 40), masks=masks)
    assert_close(case.results(ours), case.results(plain), 1e-10)
    assert_close_in_half_precision(case)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_number_of_threads_gives_the_same_bits(same_bits, dtype):
    case = Case((7, 300, 20, 20, 20), 5, (3, 2, 290, 140)).to(torch.float32, dtype)
    same_bits(lambda: case.results(ours))


def test_memory_in_any_order_is_read_right():
    case = Case((2, 30, 20, 18, 16), 3, (2, 1, 30, 30))
    truth = case.results(plain)
    x, magnitude, direction, bias, *others, weight, last = case.tensors
    case.tensors = [
        x.transpose(1, 2).contiguous().transpose(1, 2),
        magnitude.expand(18, 3, 1)[:, 1:2],
        direction.permute(2, 0, 1).contiguous().permute(1, 2, 0),
        torch.stack([bias, bias], 1)[:, 0],
        *others,
        weight.transpose(0, 1).contiguous().transpose(0, 1),
        last,
    ]
    case.d_y = case.d_y.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert_close(case.results(ours), truth, 1e-12)


def test_a_run_that_has_diverged_is_seen():
    case = Case((2, 30, 20, 18, 20), 3, (1, 1, 30, 30)).to(*[torch.float32] * 2)
    case.tensors[0][1, 5, 3] = float("nan")
    y, _, _, d_weight, *_ = case.results(ours)
    assert y[1, 5:10].isnan().all()
    assert not y[0].isnan().any()
    assert d_weight.isnan().any()


def test_a_block_of_which_nothing_is_asked_has_no_gradient():
    case = Case((2, 30, 20, 18, 20), 3, (1, 1, 30, 30))
    x, *weights = case.tensors
    y, *inner = ResidualBlocks.apply(x.requires_grad_(), case.forms, True, *weights)
    assert y.requires_grad
    assert not any(value.requires_grad for value in inner)


@pytest.mark.parametrize("in_dims", [(0, 0), (None, 0), (1, 0), (0, None)])
def test_several_weights_at_once_give_what_each_gives(in_dims):
    case = Case((2, 30, 20, 18, 20), 3, (2, 1, 30, 30), masks=2)
    dims = [in_dims[i == 2] if value is not None else None for i, value in enumerate(case.tensors)]
    case.tensors = [
        value if dim is None else torch.stack([value, 2 * value], dim)
        for value, dim in zip(case.tensors, dims, strict=True)
    ]
    case.d_y = torch.randn(2, 2, 30, 20, dtype=case.d_y.dtype)

    def together(x, forms, *weights):
        def block(x, *weights):
            return ours(x, forms, *weights)

        return torch.vmap(block, tuple(dims))(x, *weights)

    def apart(x, forms, *weights):
        found = []
        for i in range(2):
            one, *others = (
                value if dim is None else value.select(dim, i)
                for value, dim in zip((x, *weights), dims, strict=True)
            )
            found.append(plain(one, forms, *others))
        return torch.stack(found)

    assert_close(case.results(together), case.results(apart), 1e-10)


def test_what_was_saved_may_be_packed_anew():
    case = Case((2, 30, 20, 18, 20), 3, (2, 2, 30, 14), masks=3)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: x.clone(memory_format=torch.contiguous_format), lambda x: x
    ):
        packed = case.results(ours)
    assert_close(packed, case.results(plain), 1e-10)


@pytest.mark.parametrize("values", [torch.float64, torch.bfloat16])
def test_an_input_that_needs_no_gradient_gets_none(values):
    weights = torch.float64 if values == torch.float64 else torch.float32
    case = Case((2, 30, 12, 18, 20), 3, (2, 2, 30, 14)).to(weights, values)
    x, *others = case.tensors
    others = [value if value is None else value.requires_grad_() for value in others]
    wanted = [value for value in others if value is not None]
    (ours(x, case.forms, *others) * case.d_y).sum().backward()
    assert x.grad is None
    for value, grad in zip(wanted, case.results(ours)[2:], strict=True):
        assert torch.equal(value.grad, grad)


def test_blocks_that_are_frozen_get_no_gradient():
    case = Case((2, 60, 16, 16, 16, 16, 16), 3, (1, 2, 60, 30), (1, 2, 30, 15))
    _, *expected = case.results(ours)
    x, *weights = (value if value is None else value.detach() for value in case.tensors)
    wanted = [value.requires_grad_() for value in weights[10:] if value is not None]
    (ours(x, case.forms, *weights) * case.d_y).sum().backward()
    for value, grad in zip(wanted, expected[-len(wanted) :], strict=True):
        assert torch.equal(value.grad, grad)
    assert not any(value.grad is not None for value in weights[:10] if value is not None)


def test_without_gradients_a_block_leaves_nothing_behind():
    case = Case((2, 60, 16, 16, 16, 16, 16), 3, (1, 2, 60, 30), (1, 2, 30, 15))
    with torch.no_grad():
        assert len(ResidualBlocks.apply(case.tensors[0], case.forms, False, *case.tensors[1:])) == 1


def test_it_is_taken_where_it_can_be_and_pays():
    x, _, weight, *_ = Case((2, 30, 16, 16, 16), 3, (1, 1, 30, 30), dtype=torch.float32).tensors
    assert tcn_cpu.pays(x, weight, weight)
    assert not tcn_cpu.pays(x.to("meta"), weight)
    assert not tcn_cpu.pays(x.bfloat16(), weight)
    whole_matrices = torch.cpu._is_amx_tile_supported()
    with torch.autocast("cpu", torch.bfloat16):
        assert tcn_cpu.pays(x, weight) is not whole_matrices
        assert tcn_cpu.pays(x.bfloat16(), weight) is not whole_matrices
        assert not tcn_cpu.pays(x, weight.bfloat16())
        assert not tcn_cpu.pays(x.double(), weight)
    with torch.autocast("cpu", torch.float16):
        assert not tcn_cpu.pays(x, weight)
    assert not tcn_cpu.pays(x, weight, weight[:1])  # one output a vector
    assert tcn_cpu.pays(x, weight, weight, weight, weight, weight[:4])  # the others outweigh it
    assert not tcn_cpu.pays(x, weight, weight.double())
    assert not tcn_cpu.pays(x.double(), weight)
    assert not tcn_cpu.pays(x[..., :3], weight)


@pytest.mark.parametrize(("batch", "length"), [(0, 30), (2, 0)])
def test_nothing_gives_nothing(batch, length):
    y, *grads = Case((batch, 30, 20, 18, 20), 3, (1, 1, length, length)).results(ours)
    assert y.shape == (batch, length, 20)
    assert all(grad.eq(0).all() for grad in grads)


def test_a_training_step_is_not_slower_than_torchs():
    case = Case((16, 200, 64, 64, 64), 3, (2, 1, 200, 200), dtype=torch.float32)
    steps = {"theirs": plain, "ours": ours}
    best = dict.fromkeys(steps, float("inf"))
    for _ in range(15):
        for name, step in steps.items():
            begin = time.perf_counter()
            case.results(step)
            best[name] = min(best[name], time.perf_counter() - begin)
    assert best["ours"] < best["theirs"] / 1.1  # 1.6 where nothing else runs
