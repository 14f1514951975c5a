"""NLinear and DLinear compute the formulas of Zeng et al. 2023 (section 4)."""

import pytest
import torch

from seqbench.errors import ConfigError
from seqbench.spec import Classes, Features, SequenceSpec, Tokens, Values

SPEC = SequenceSpec(Features(5), Values(3 * 7, steps=7), "last", 30)


def nlinear(model, column):
    """Subtract the last value, map the look-back to the horizon, add the last value."""
    weight, bias = model.linear.weight, model.linear.bias
    return torch.stack([bias + weight @ (x - x[-1]) + x[-1] for x in column])


def dlinear(model, column):
    """Map a moving average, whose ends repeat the first and the last value, and the remainder."""
    reach = model.kernel_size // 2
    size = 2 * reach + 1
    trends = []
    for x in column:
        padded = [x[0]] * reach + list(x) + [x[-1]] * reach
        trends.append(torch.stack([sum(padded[i : i + size]) / size for i in range(len(x))]))
    trend = torch.stack(trends)
    parts = ((model.trend, trend), (model.remainder, column - trend))
    return sum(x @ layer.weight.T + layer.bias for layer, x in parts)


@pytest.mark.parametrize(
    ("name", "formula", "size"),
    [
        ("nlinear", nlinear, 30 * 7 + 7),
        ("dlinear", dlinear, 2 * (30 * 7 + 7)),
    ],
)
def test_the_forecast_of_each_target_is_that_of_the_formula(make, name, formula, size):
    torch.manual_seed(0)
    model = make(name, SPEC, **({"kernel_size": 9} if name == "dlinear" else {})).double()
    assert sum(p.numel() for p in model.parameters()) == size
    x = torch.randn(4, 30, 5, dtype=torch.double)
    found = model(x)[0].unflatten(1, (7, 3))
    for target in range(3):
        torch.testing.assert_close(found[..., target], formula(model, x[..., target]))
    # The fourth column is no target, and is not read.
    x[..., 3:] = 0
    torch.testing.assert_close(model(x)[0].unflatten(1, (7, 3)), found, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["nlinear", "dlinear"])
def test_a_short_look_back_is_padded_with_its_first_value(make, name):
    model, x = make(name, SPEC), torch.randn(2, 11, 5)
    long = torch.cat([x[:, :1].expand(-1, 19, -1), x], 1)
    torch.testing.assert_close(model(x)[0], model(long)[0])


@pytest.mark.parametrize("name", ["nlinear", "dlinear"])
@pytest.mark.parametrize(
    "spec",
    [
        SequenceSpec(Tokens(5), Values(3, steps=3), "last", 9),
        SequenceSpec(Features(5), Classes(3), "last", 9),
        SequenceSpec(Features(5), Values(3), "last", 9),
    ],
)
def test_other_tasks_are_refused(make, name, spec):
    with pytest.raises(ConfigError, match="is for forecasting tasks only"):
        make(name, spec)


@pytest.mark.parametrize("size", [0, 4])
def test_the_moving_average_has_a_middle(make, size):
    with pytest.raises(ConfigError, match=f"must be odd and positive, not {size}"):
        make("dlinear", SPEC, kernel_size=size)
