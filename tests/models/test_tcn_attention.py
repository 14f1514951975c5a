"""A TCN below attention: what each part sees, and the ablation of equal size."""

import pytest
import torch
from torch.nn import functional as F

from seqbench.errors import ConfigError
from seqbench.models.attention import rotation
from seqbench.spec import Classes, Features, SequenceSpec, Tokens

SMALL = {"channels": [8, 8], "kernel_size": 3, "num_heads": 2}
TIME = 30
TOKENS = Tokens(7)


def spec_of(readout, source=TOKENS):
    return SequenceSpec(source, Classes(5), readout, TIME)


def model_of(make, readout="every", name="tcn_attention", source=TOKENS, **values):
    torch.manual_seed(0)
    values = SMALL | values if name == "tcn_attention" else values
    model = make(name, spec_of(readout, source), **values).double().eval()
    torch.nn.init.normal_(model.output.weight)
    return model


def attention(layer, x):
    """Compute attention with complex numbers, which rotary positions turn."""
    q, k, v = (each(x).unflatten(-1, (2, -1)) for each in (layer.query, layer.key, layer.value))
    cos, sin = rotation(x.shape[1], 4, 10_000.0, x.dtype, x.device)
    turn = torch.complex(cos[:, :2], -sin[:, :2])[:, None]
    q, k = (torch.complex(*each.unflatten(-1, (2, -1)).unbind(-2)) * turn for each in (q, k))
    scores = torch.einsum("bihd,bjhd->bhij", q, k.conj()).real / 2  # the root of 4 dimensions
    future = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
    weights = scores.masked_fill(future, -torch.inf).softmax(-1)
    return layer.output(torch.einsum("bhij,bjhd->bihd", weights, v).flatten(2))


@torch.no_grad()
@pytest.mark.parametrize("with_attention", [True, False])
def test_the_sublayers_stand_on_the_levels_of_a_tcn(make, with_attention):
    model = model_of(make, attention=with_attention, attention_layers=2)
    sizes = {"channels": [8, 8], "kernel_size": 3}
    tcn = model_of(make, name="tcn", **sizes)
    levels = {k: v for k, v in model.state_dict().items() if not k.startswith("sublayers")}
    tcn.load_state_dict(levels)
    tcn.output = torch.nn.Identity()
    x = torch.randint(7, (3, TIME))
    h, _ = tcn(x)
    for sublayer in model.sublayers:
        normed = F.rms_norm(h, (8,), sublayer.norm.weight, 1e-5)
        layer = sublayer.layer
        h = h + (attention(layer, normed) if with_attention else layer(normed))
    expected = model.output(h)
    torch.testing.assert_close(model(x)[0], expected, rtol=0, atol=1e-10)
    for readout, of_it in (("last", expected[:, -1]), ("mean", model.output(h.mean(1)))):
        other = model_of(make, readout, attention=with_attention, attention_layers=2)
        other.load_state_dict(model.state_dict())
        torch.testing.assert_close(other(x)[0], of_it, rtol=0, atol=1e-10)


@pytest.mark.parametrize("with_attention", [True, False])
def test_attention_sees_what_the_levels_do_not(make, with_attention):
    model = model_of(make, source=Features(2), attention=with_attention)
    x = torch.randn(1, TIME, 2, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(x)[0][0, -1].sum(), x)
    seen = gradient[0].abs().sum(-1).nonzero().flatten().tolist()
    field = 1 + 2 * 2 * (1 + 2)  # of two levels
    assert seen == list(range(0 if with_attention else TIME - field, TIME))
    assert model.receptive_field == (None if with_attention else field)


def test_both_ablations_have_the_same_parameters_and_the_same_first_levels(make):
    for layers in (1, 2):
        on, off = (model_of(make, attention=a, attention_layers=layers) for a in (True, False))
        sizes = [sum(p.numel() for p in model.parameters()) for model in (on, off)]
        assert sizes[0] == sizes[1]
        assert sum(p.numel() for p in on.sublayers.parameters()) == layers * (4 * 8 * 8 + 8)
        for mine, other in zip(on.blocks.parameters(), off.blocks.parameters(), strict=True):
            assert torch.equal(mine, other)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"channels": []}, r"model\.channels must be positive widths"),
        ({"attention_layers": 0}, r"model\.attention_layers must be at least 1, not 0"),
        ({"num_heads": 0}, r"model\.num_heads must be at least 1, not 0"),
        ({"num_heads": 3}, r"the last of model\.channels, 8, must be a multiple of twice .*=3"),
    ],
)
def test_a_size_that_cannot_be_is_named(make, values, message):
    with pytest.raises(ConfigError, match=message):
        make("tcn_attention", spec_of("every"), **(SMALL | values))
