import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from seqbench.config.choices import CONFIG_FOLDER, choices_of, read_choice
from seqbench.config.schema import check_node
from seqbench.errors import ConfigError
from seqbench.spec import Classes, Features, SequenceSpec, Tokens, Values

MODELS = choices_of("model")
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
    ],
)
def test_parameter_counts(make, name, spec, values, expected):
    assert size(make(name, spec, **values)) == expected


@pytest.mark.parametrize("name", MODELS)
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


WIDTHS = st.integers(1, 6)
DEPTHS = st.integers(1, 3)
SIZES = {
    "tcn": st.fixed_dictionaries(
        {
            "channels": st.lists(WIDTHS, min_size=1, max_size=4),
            "kernel_size": st.integers(2, 5),
            "output_std": st.none(),
        }
    ),
    "llama": st.fixed_dictionaries(
        {
            "dim": st.sampled_from([8, 16]),
            "num_layers": DEPTHS,
            "num_heads": st.just(4),
            "num_kv_heads": st.sampled_from([1, 2, 4]),
            "context": st.one_of(st.none(), st.integers(1, 20)),
        }
    ),
}
RECURRENT = st.fixed_dictionaries({"hidden_size": WIDTHS, "num_layers": DEPTHS})


@pytest.mark.parametrize("name", MODELS)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_the_past_never_sees_the_future(make, name, data):
    values = data.draw(SIZES.get(name, RECURRENT))
    time = data.draw(st.integers(2, 50))
    start = data.draw(st.integers(1, time - 1))
    torch.manual_seed(data.draw(st.integers(0, 100)))
    tokens = data.draw(st.booleans())
    spec = SequenceSpec(Tokens(9) if tokens else Features(2), Values(2), "every", time)
    model = make(name, spec, **values).double().eval()
    if tokens:
        x, other = torch.randint(9, (2, 2, time))
    else:
        x, other = torch.randn(2, 2, time, 2, dtype=torch.float64)
    changed = torch.cat([x[:, :start], other[:, start:]], 1)
    before, after = output_of(model, x), output_of(model, changed)
    torch.testing.assert_close(after[:, :start], before[:, :start], rtol=0, atol=1e-12)


@pytest.mark.parametrize("readout", ["last", "every"])
@pytest.mark.parametrize("source", [Features(1), Tokens(40)], ids=["features", "tokens"])
@pytest.mark.parametrize("name", MODELS)
def test_untrained_loss_is_near_that_of_a_guess(make, name, source, readout):
    torch.manual_seed(0)
    spec = SequenceSpec(source, Classes(40), readout, 100)
    model = make(name, spec)
    tokens = isinstance(source, Tokens)
    x = torch.randint(40, (16, 100)) if tokens else torch.randn(16, 100, 1)
    output = output_of(model, x)
    targets = torch.randint(40, output.shape[:-1])
    loss = F.cross_entropy(output.flatten(0, -2), targets.flatten())
    assert abs(loss.item() - math.log(40)) < 0.15


@pytest.mark.parametrize("name", MODELS)
def test_untrained_loss_of_tied_weights_is_near_that_of_a_guess(make, name):
    torch.manual_seed(0)
    model = make(name, SequenceSpec(Tokens(40), Classes(40), "every", 100), tied=True)
    assert model.output.weight is model.embedding.weight
    output = output_of(model, torch.randint(40, (16, 100)))
    loss = F.cross_entropy(output.flatten(0, 1), torch.randint(40, (1600,)))
    assert abs(loss.item() - math.log(40)) < 0.15


@pytest.mark.parametrize("name", MODELS)
def test_tied_weights_need_tokens(make, name):
    with pytest.raises(ConfigError, match=r"model\.tied"):
        make(name, COPY, tied=True)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("source", [Tokens(20), Features(20)])
@pytest.mark.parametrize("name", MODELS)
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
