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


# Forecasts of the second sequence below, 4 steps of 3 targets, by the classes NLinear and DLinear
# (moving_avg=5) of BasicTS 1.1.0 from PyPI, each parameter filled with sin(0), sin(1), ...
BASICTS = {
    "nlinear": [
        *(0.716469420, 1.098823191, 0.964383246, 0.469871338, 1.200379386, 1.762087204),
        *(1.553092038, 1.873539964, 1.740489559, 1.577503888, 1.669125061, 1.042101582),
    ],
    "dlinear": [
        *(0.472565479, 0.676611123, 0.562435983, 1.520096750, 2.403216562, 2.947579979),
        *(1.393417345, 0.932383776, 0.888149125, 0.568811920, -0.180147093, -0.711638223),
    ],
}


@pytest.mark.parametrize("name", BASICTS)
def test_forecasts_are_those_of_another_implementation(make, name):
    spec = SequenceSpec(Features(3), Values(4 * 3, steps=4), "last", 8)
    model = make(name, spec, **({"kernel_size": 5} if name == "dlinear" else {})).double()
    with torch.no_grad():
        for parameter in model.parameters():
            numbers = torch.arange(parameter.numel(), dtype=torch.double)
            parameter.copy_(numbers.sin().view_as(parameter))
    x = (torch.arange(2 * 8 * 3, dtype=torch.double) * 0.7).cos().reshape(2, 8, 3).cumsum(1)
    expected = torch.tensor(BASICTS[name], dtype=torch.double)
    torch.testing.assert_close(model(x)[0][1], expected, rtol=0, atol=1e-8)


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
