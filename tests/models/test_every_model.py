"""Sizes, initial weights, dtypes and options of every packaged model."""

import math

import pytest
import torch
from torch.nn import functional as F

from seqbench.config.choices import CONFIG_FOLDER, choices_of, read_choice
from seqbench.config.schema import check_node
from seqbench.errors import ConfigError
from seqbench.spec import Classes, Features, SequenceSpec, Tokens, Values

MODELS = choices_of("model")
GENERAL = [name for name in MODELS if "linear" not in name]
ADDING = SequenceSpec(Features(2), Values(1), "last", 600)
MNIST = SequenceSpec(Features(1), Classes(10), "last", 784)
COPY = SequenceSpec(Features(1), Classes(10), "every", 1020)


def size(model):
    return sum(parameter.numel() for parameter in model.parameters())


def output_of(model, x):
    return model(x)[0]


@pytest.mark.parametrize(
    ("name", "spec", "values", "expected"),
    [
        ("tcn", MNIST, {"channels": [25] * 8, "kernel_size": 7}, 66_910),
        ("tcn", ADDING, {"channels": [24] * 8, "kernel_size": 8}, 70_369),
        ("tcn", COPY, {"channels": [10] * 8, "kernel_size": 8}, 12_530),
        ("lstm", MNIST, {"hidden_size": 130}, 70_470),
        ("lstm", COPY, {"hidden_size": 50}, 11_110),
        # Three gates of (input + state + two biases) x 150, and the output layer.
        ("gru", MNIST, {"hidden_size": 150}, 3 * 150 * (1 + 150 + 2) + 150 * 10 + 10),
        ("rnn", ADDING, {"hidden_size": 256}, 256 * (2 + 256 + 2) + 256 + 1),
        # Attention 4 d^2, SwiGLU 3 d h, two norms a block; input, last norm, output.
        (
            "llama",
            ADDING,
            {"dim": 48, "hidden_dim": 96, "num_layers": 3},
            3 * (4 * 48**2 + 3 * 48 * 96 + 2 * 48) + 2 * 48 + 48 + 48,
        ),
        # Attention with its distances 5 d^2, two biased feed-forward layers, two norms a layer;
        # input, u and v, output.
        (
            "transformer_xl",
            ADDING,
            {"dim": 48, "hidden_dim": 112, "num_layers": 3},
            3 * (5 * 48**2 + 2 * 48 * 112 + 112 + 48 + 4 * 48) + 3 * 48 + 2 * 48 + 48 + 1,
        ),
        # The first convolution of a level of two features, the other nine, the shortcut; attention.
        (
            "tcn_attention",
            ADDING,
            {"channels": [32] * 5, "kernel_size": 7},
            32 * (2 * 7 + 2) + 9 * 32 * (32 * 7 + 2) + 3 * 32 + 4 * 32**2 + 32 + 32 + 1,
        ),
    ],
)
def test_parameter_counts(make, name, spec, values, expected):
    assert size(make(name, spec, **values)) == expected


@pytest.mark.parametrize("name", GENERAL)
def test_defaults_are_about_seventy_thousand_parameters(make, name):
    assert 66_000 < size(make(name, ADDING)) < 71_000


@pytest.mark.parametrize("name", MODELS)
def test_yaml_fits_the_signature_and_explains_every_key(name):
    node = read_choice("model", name)
    check_node("model", node)
    lines = (CONFIG_FOLDER / "model" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    for line in lines:
        if not line.startswith(("#", "_")):
            assert " # " in line, line


@pytest.mark.parametrize(
    ("source", "readout", "tied"),
    [
        (Features(1), "every", False),
        (Features(1), "last", False),
        (Tokens(40), "last", False),
        (Tokens(40), "every", True),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", GENERAL)
def test_the_untrained_loss_is_near_that_of_a_guess(make, name, source, readout, tied):
    torch.manual_seed(0)
    model = make(name, SequenceSpec(source, Classes(40), readout, 100), tied=tied)
    x = torch.randint(40, (16, 100)) if isinstance(source, Tokens) else torch.randn(16, 100, 1)
    output = output_of(model, x)
    targets = torch.randint(40, output.shape[:-1])
    loss = F.cross_entropy(output.flatten(0, -2), targets.flatten())
    assert abs(loss.item() - math.log(40)) < 0.15
    assert not tied or model.output.weight is model.embedding.weight


@pytest.mark.parametrize("name", GENERAL)
def test_tied_weights_need_tokens(make, name):
    with pytest.raises(ConfigError, match=r"model\.tied"):
        make(name, COPY, tied=True)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("source", [Tokens(20), Features(20)])
@pytest.mark.parametrize("name", GENERAL)
def test_bfloat16_is_near_single_precision(make, name, source):
    torch.manual_seed(0)
    model = make(name, SequenceSpec(source, Classes(20), "every", 64))
    x = torch.randint(20, (4, 64))
    x = x if isinstance(source, Tokens) else F.one_hot(x, 20).float()
    exact = output_of(model, x)
    with torch.autocast("cpu", torch.bfloat16):
        output = output_of(model, x)
    output.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert (output.float() - exact).abs().max() < 0.03 * exact.abs().max()
