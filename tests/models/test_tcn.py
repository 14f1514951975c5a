"""The TCN is the published network; dropout, receptive field and outputs left out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from seqbench import kernels
from seqbench.errors import ConfigError
from seqbench.kernels import BlockShape
from seqbench.models.tcn import TCN, Block
from seqbench.spec import Classes, Features, SequenceSpec, Tokens, Values

PLAIN = {"dropout": 0.0, "embedding_dim": None, "tied": False, "output_std": None}


def published_tcn(weights, x, levels, kernel_size):
    """Compute the paper's network at every step.

    Each convolution pads both sides, and drops the outputs that see the future.
    """

    def conv(x, name, dilation):
        g = weights[f"{name}.parametrizations.weight.original0"]
        v = weights[f"{name}.parametrizations.weight.original1"]
        weight = g * v / v.flatten(1).norm(dim=1)[:, None, None]
        padding = (kernel_size - 1) * dilation
        y = F.conv1d(x, weight, weights[f"{name}.bias"], padding=padding, dilation=dilation)
        return y[..., : x.shape[-1]]

    h = x.transpose(1, 2)
    for i in range(levels):
        block = f"blocks.{i}"
        y = conv(h, f"{block}.conv1", 2**i).relu()
        y = conv(y, f"{block}.conv2", 2**i).relu()
        if f"{block}.downsample.weight" in weights:
            h = F.conv1d(
                h, weights[f"{block}.downsample.weight"], weights[f"{block}.downsample.bias"]
            )
        h = (y + h).relu()
    return h.transpose(1, 2) @ weights["output.weight"].T + weights["output.bias"]


@settings(max_examples=60)
@given(
    kernel_size=st.integers(2, 9),
    # The wide ones fill vectors: with a compiler, their blocks are compiled.
    channels=st.lists(st.sampled_from([1, 2, 5, 7, 8, 15, 23]), min_size=1, max_size=6),
    time=st.integers(1, 200),
    features=st.integers(1, 3),
    kind=st.sampled_from(["channel", "element"]),
    readout=st.sampled_from(["last", "every"]),
    context=st.integers(0, 199),
    seed=st.integers(0, 1000),
)
def test_equals_the_published_network_in_outputs_and_gradients(
    kernel_size, channels, time, features, kind, readout, context, seed
):
    torch.manual_seed(seed)
    spec = SequenceSpec(Features(features), Classes(3), readout, time)
    model = TCN(spec, channels, kernel_size, dropout_kind=kind, **PLAIN).double()
    x = torch.randn(2, time, features, dtype=torch.float64)
    weights = {k: v.detach().clone().requires_grad_() for k, v in model.named_parameters()}
    expected = published_tcn(weights, x, len(channels), kernel_size)
    context = 0 if readout == "last" else context % time
    expected = expected[:, -1] if readout == "last" else expected[:, context:]
    output, _ = model(x, context=context)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-10)

    direction = torch.randn_like(expected)
    (output * direction).sum().backward()
    (expected * direction).sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, weights[name].grad, rtol=1e-9, atol=1e-10)


@settings(max_examples=20)
@given(kernel_size=st.integers(2, 4), levels=st.integers(1, 3), seed=st.integers(0, 100))
def test_reaches_back_as_far_as_its_receptive_field_and_no_further(kernel_size, levels, seed):
    torch.manual_seed(seed)
    # Positive weights and inputs: no rectifier cuts a path.
    spec = SequenceSpec(Features(1), Classes(2), "last", 80)
    model = TCN(spec, [3] * levels, kernel_size, dropout_kind="channel", **PLAIN).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    x = torch.rand(1, 80, 1, dtype=torch.float64, requires_grad=True)
    model(x)[0].sum().backward()
    seen = x.grad[0, :, 0].ne(0).nonzero()
    assert 80 - seen[0].item() == model.receptive_field


def test_outputs_that_are_not_read_are_not_computed():
    spec = SequenceSpec(Tokens(5), Classes(5), "every", 100)
    model = TCN(spec, [4, 4, 4], 3, dropout_kind="channel", **PLAIN)
    assert [shape.length for shape in model.shapes(100, 20, last=False)] == [
        20 + 16 + 8,
        20 + 16,
        20,
    ]
    assert model(torch.randint(5, (1, 100)), context=80)[0].shape == (1, 20, 5)


def drawn_masks(kind, training=True):
    """Return dropout masks of a block's two convolutions."""
    torch.manual_seed(3)
    block = Block(4, 40, 3, dropout=0.25, dropout_kind=kind).train(training)
    weights = block.weights(8, BlockShape(1, 1, 50, 30))
    return weights.mask1, weights.mask2


def test_channel_dropout_drops_whole_channels_of_each_sequence():
    for mask in drawn_masks("channel"):
        assert mask.shape == (8, 40)
        assert set(mask.unique().tolist()) == {0, torch.tensor(1 / 0.75).item()}
        assert 0.15 < mask.eq(0).float().mean() < 0.35
        assert not torch.equal(mask[0], mask[1])


def test_element_dropout_drops_single_values():
    for mask, length in zip(drawn_masks("element"), (50, 30), strict=True):
        assert mask.shape == (8, length, 40)
        assert set(mask.unique().tolist()) == {0, torch.tensor(1 / 0.75).item()}
        assert 0.2 < mask.eq(0).float().mean() < 0.3
        assert not mask.eq(0).all(1).any()


def test_no_dropout_in_evaluation():
    assert drawn_masks("channel", training=False) == (None, None)


@pytest.mark.parametrize("kind", ["channel", "element"])
@pytest.mark.parametrize("readout", ["last", "every"])
def test_compiled_blocks_and_pytorch_draw_the_same_dropout(kind, readout):
    spec = SequenceSpec(Features(16), Values(3), readout, 50)
    model = TCN(spec, [16, 16], 3, **(PLAIN | {"dropout": 0.25}), dropout_kind=kind).double()
    x = torch.randn(8, 50, 16, dtype=torch.float64)
    for training in (True, False):
        model.train(training)
        torch.manual_seed(3)
        found, _ = model(x)
        torch.manual_seed(3)
        with kernels.disabled():
            torch.testing.assert_close(found, model(x)[0], rtol=0, atol=1e-10)


def test_output_std_holds_for_tied_weights_too(make):
    spec = SequenceSpec(Tokens(200), Classes(200), "every", 8)
    model = make("tcn", spec, channels=[30, 30], tied=True, output_std=0.01)
    assert model.output.weight is model.embedding.weight
    assert abs(model.embedding.weight.std().item() - 0.01) < 0.001


@pytest.mark.parametrize(
    ("key", "value"), [("embedding_dim", 0), ("embedding_dim", -1), ("output_std", -1.0)]
)
def test_sizes_out_of_range_are_refused(key, value):
    spec = SequenceSpec(Tokens(4), Classes(3), "last", 10)
    with pytest.raises(ConfigError, match=rf"model\.{key} must be at least \d, not {value}"):
        TCN(spec, [4], 3, dropout_kind="channel", **PLAIN | {key: value})
