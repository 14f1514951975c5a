import pytest
import torch

from seqbench.bench.plain import INITIAL, PLAIN, twin
from seqbench.config.build import build
from seqbench.config.choices import choices_of, read_choice
from seqbench.errors import ConfigError
from seqbench.spec import Classes, Features, SequenceSpec, Tokens, Values

LENGTH = 40
SPECS = {
    "features, last": SequenceSpec(Features(2), Values(1), "last", LENGTH),
    "features, every": SequenceSpec(Features(2), Classes(5), "every", LENGTH),
    "tokens, last": SequenceSpec(Tokens(7), Classes(5), "last", LENGTH),
    "tokens, every": SequenceSpec(Tokens(7), Classes(7), "every", LENGTH),
}
SETTINGS = [
    ("tcn", {"channels": [6, 6, 6, 6], "kernel_size": 3}),
    ("tcn", {"channels": [4, 7, 5], "kernel_size": 8, "embedding_dim": 3}),
    ("lstm", {"hidden_size": 9, "num_layers": 2}),
    ("gru", {"hidden_size": 9, "num_layers": 2, "embedding_dim": 4}),
    ("rnn", {"hidden_size": 9}),
    ("llama", {"dim": 12, "num_layers": 2, "num_heads": 3, "hidden_dim": 20}),
    ("llama", {"dim": 16, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "context": 7}),
]


def pair(name, spec, **values):
    """Ours and the plain one, with the same weights."""
    node = read_choice("model", name) | values
    torch.manual_seed(0)
    ours, plain = build("model", {"model": node}, spec), twin(node, spec)
    plain.load_state_dict({plain_name(k): v for k, v in ours.state_dict().items()})
    return ours, plain


def plain_name(name):
    """Torch numbers the layers of a recurrent stack at the end of a weight's name."""
    layers, _, rest = name.partition(".")
    if layers == "layers" and rest.endswith("_l0"):
        index, _, weight = rest.partition(".")
        return f"layers.{weight.removesuffix('0')}{index}"
    return name


def inputs(spec, batch=3):
    if isinstance(spec.input, Features):
        return torch.randn(batch, spec.length, spec.input.dim, dtype=torch.get_default_dtype())
    return torch.randint(spec.input.vocab_size, (batch, spec.length))


def outputs_and_gradients(model, x):
    y, _ = model(x)
    y.square().sum().backward()
    return {"outputs": y} | {
        plain_name(k): p.grad for k, p in model.state_dict(keep_vars=True).items()
    }


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize(("name", "values"), SETTINGS)
def test_plain_models_are_ours_in_double_precision(double, name, values, spec):
    ours, plain = pair(name, spec, **values)
    x = inputs(spec)
    found, expected = outputs_and_gradients(plain, x), outputs_and_gradients(ours, x)
    assert found.keys() == expected.keys() or name in ("lstm", "gru", "rnn")
    for key, value in expected.items():
        key = plain_name(key)
        torch.testing.assert_close(found[key], value, rtol=0, atol=1e-10, msg=key)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize(("name", "values"), SETTINGS)
def test_and_in_single_precision_but_for_rounding(name, values, spec):
    ours, plain = pair(name, spec, **values)
    x = inputs(spec)
    found, expected = outputs_and_gradients(plain, x), outputs_and_gradients(ours, x)
    for key, value in expected.items():
        largest = value.abs().max().item()
        torch.testing.assert_close(found[key], value, rtol=0, atol=1e-5 * largest, msg=key)


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_a_plain_state_can_be_carried(name):
    _, plain = pair(name, SPECS["tokens, every"], hidden_size=9, num_layers=2)
    x = inputs(SPECS["tokens, every"])
    first, state = plain(x[:, :25])
    second, _ = plain(x[:, 25:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), plain(x)[0])


@pytest.mark.parametrize("name", choices_of("model"))
def test_every_model_of_ours_has_a_plain_form_with_torchs_first_weights(name):
    node = read_choice("model", name)
    assert node["_target_"] in PLAIN
    torch.manual_seed(0)
    weights = twin(node, SPECS["features, every"]).state_dict()
    torch.manual_seed(0)
    changed = {key: 0.5 for key in INITIAL if key in node and key != "chrono"}
    again = twin(node | changed, SPECS["features, every"]).state_dict()
    assert all(torch.equal(weights[key], again[key]) for key in weights)


def test_a_model_of_the_users_has_none():
    with pytest.raises(ConfigError, match=r"not of my_model\.Mean"):
        twin({"_target_": "my_model.Mean"}, SPECS["features, last"])


def test_nor_has_a_decoder_that_carries_its_cache():
    with pytest.raises(ConfigError, match="carry_state"):
        twin(read_choice("model", "llama") | {"carry_state": True}, SPECS["tokens, every"])
