"""Removing units: a model without units that did nothing computes the same as before."""

import pytest
import torch

from seqbench.config.choices import read_choice
from seqbench.errors import ConfigError
from seqbench.models.effective import to_effective, with_effective
from seqbench.models.units import count_in, fewer, norms, strongest, without_units
from seqbench.spec import Classes, Features, SequenceSpec, Tokens, Values
from seqbench.training.state import weights

LAST = SequenceSpec(Features(3), Values(2), "last", 20)
TEXT = SequenceSpec(Tokens(7), Classes(7), "every", 20)
MODELS = {
    "tcn of features": ("tcn", LAST, {"channels": [10, 10, 8], "kernel_size": 3}),
    "tcn of tokens": ("tcn", TEXT, {"channels": [8, 8, 8], "kernel_size": 3}),
    "tcn with an embedding of its own": (
        *("tcn", TEXT),
        {"channels": [8, 6, 6], "kernel_size": 2, "embedding_dim": 5},
    ),
    "tied tcn": (
        *("tcn", TEXT),
        {"channels": [4, 4, 8], "kernel_size": 2, "embedding_dim": 8, "tied": True},
    ),
    "rnn": ("rnn", LAST, {"hidden_size": 8, "num_layers": 2}),
    "gru": ("gru", TEXT, {"hidden_size": 8, "num_layers": 2}),
    "tied gru": ("gru", TEXT, {"hidden_size": 8, "num_layers": 2, "tied": True}),
    "lstm": ("lstm", LAST, {"hidden_size": 8, "num_layers": 1}),
    "tied lstm": (
        *("lstm", TEXT),
        {"hidden_size": 8, "num_layers": 1, "embedding_dim": 8, "tied": True},
    ),
    "llama": ("llama", LAST, {"dim": 16, "num_heads": 4, "hidden_dim": 12, "num_layers": 2}),
    "llama with grouped queries": (
        *("llama", TEXT),
        {"dim": 16, "num_heads": 4, "num_kv_heads": 2, "hidden_dim": None, "num_layers": 1},
    ),
    "gpt": (
        *("llama", TEXT),
        {"dim": 16, "num_heads": 2, "hidden_dim": 9, "feed_forward": "gelu", "tied": True},
    ),
}


def options_of(name, values):
    return {k: v for k, v in (read_choice("model", name) | values).items() if k[0] != "_"}


def pair(make, case, share):
    """Return a model with random weights, and a smaller one."""
    name, spec, values = MODELS[case]
    torch.manual_seed(3)
    large = make(name, spec, **values).eval()
    with torch.no_grad():
        for parameter in large.parameters():  # biases are 0 at first, magnitudes follow directions
            parameter.add_(torch.randn_like(parameter) / 4)
    options = type(large).with_fewer_units(spec, options_of(name, values), share)
    return large, make(name, spec, **options).eval(), spec


def inputs(spec):
    if isinstance(spec.input, Tokens):
        return torch.randint(spec.input.vocab_size, (3, 20))
    return torch.randn(3, 20, spec.input.dim)


def without_effect(model, small):
    """Set to 0 what computes the units that `small` lacks; return their number."""
    tensors = {name.removeprefix("model."): tensor for name, tensor in weights(model).items()}
    whole, own = (to_effective(m, m.state_dict()) for m in (model, small))
    changed, removed = dict(whole), 0
    for units in small.units():
        count = count_in(units, own, whole)
        kept = strongest(norms(units, count, whole), units.count)
        gone = [unit for unit in range(count) if unit not in kept]
        removed += len(gone)
        for place in units.places:
            reads = place.dim == 1 and place.weight != "embedding.weight"
            if not reads:
                # A copy along the dimension, since the view may be one of the weight itself.
                weight = changed[place.weight].clone().movedim(place.dim, 0)
                shape = weight.shape
                weight = weight.reshape(place.parts, count, -1, *shape[1:])
                weight[:, gone] = 0
                changed[place.weight] = weight.reshape(shape).movedim(0, place.dim)
    model.load_state_dict(with_effective(model, tensors, changed), strict=False)
    return removed


@pytest.mark.parametrize("share", [0.25, 0.5, 0.6])
@pytest.mark.parametrize("case", MODELS)
def test_units_without_an_effect_are_removed_without_an_effect(make, case, share):
    large, small, spec = pair(make, case, share)
    cut = without_units(small, small.units(), named(large))
    small.load_state_dict(cut, strict=False)
    assert without_effect(large, small)
    x = inputs(spec)
    with torch.no_grad():
        torch.testing.assert_close(small(x)[0], large(x)[0], rtol=1e-4, atol=1e-5)
    assert size(small) < size(large)
    assert set(cut) == set(named(small))


def named(model):
    return {name.removeprefix("model."): tensor for name, tensor in weights(model).items()}


def size(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("case", MODELS)
def test_no_unit_removed_changes_no_bit(make, case):
    large, small, _ = pair(make, case, 0.0)
    cut = without_units(small, small.units(), named(large))
    assert cut.keys() == named(large).keys()
    assert all(torch.equal(cut[name], tensor) for name, tensor in named(large).items())


def test_the_weakest_units_go(make):
    large = make("gru", LAST, hidden_size=6, num_layers=1)
    small = make("gru", LAST, hidden_size=4, num_layers=1)
    with torch.no_grad():
        for name, parameter in large.named_parameters():
            parameter.fill_(1.0)
            if "output" not in name:
                parameter.view(3, 6, *parameter.shape[1:])[:, [1, 4]] = 0.1
    cut = without_units(small, small.units(), named(large))
    assert cut["layers.0.weight_ih_l0"].eq(1).all()
    assert cut["layers.0.weight_hh_l0"].shape == (12, 4)


@pytest.mark.parametrize(
    ("count", "share", "left"), [(8, 0, 8), (8, 0.25, 6), (10, 0.25, 7), (3, 0.99, 1), (10, 0.1, 9)]
)
def test_how_many_units_stay(count, share, left):
    assert fewer(count, share) == left


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("tcn", {"channels": [3, 3]}, "a shortcut adds the 3 input features"),
        ("tcn", {"channels": [5, 4]}, "units=0.3 would leave block 0 with 3 channels"),
        ("tcn_attention", {}, "no units of TCNAttention can be removed"),
        ("transformer_xl", {}, "no units of TransformerXL can be removed"),
        ("dlinear", {}, "no units of DLinear can be removed"),
    ],
)
def test_models_whose_units_cannot_be_removed_say_so(make, name, values, said):
    from seqbench.config.schema import import_target

    node = read_choice("model", name)
    with pytest.raises(ConfigError, match=said):
        import_target(node["_target_"], "model").with_fewer_units(
            LAST, options_of(name, values), 0.3
        )
