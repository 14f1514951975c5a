import pytest

from seqbench.bench.growth import exponent, largest_error, overrides, parse
from seqbench.config.compose import compose
from seqbench.errors import ConfigError


@pytest.mark.parametrize("power", [0.0, 0.97, 2.0, -1.0])
def test_the_exponent_of_a_power_law_is_found(power):
    sizes = [100, 200, 400, 800]
    assert exponent(sizes, [3 * size**power for size in sizes]) == pytest.approx(power, abs=1e-12)


def test_the_error_covers_the_steepest_line_within_the_bounds():
    sizes, costs = [100, 200, 400], [1.0, 2.1, 3.9]
    least, most = ([cost / factor for cost in costs] for factor in (1.1, 1 / 1.1))
    found = largest_error(sizes, least, most)
    steepest = exponent(sizes, [least[0], costs[1], most[2]])
    assert steepest == pytest.approx(exponent(sizes, costs) + found, abs=1e-12)
    assert largest_error(sizes, costs, costs) == 0
    assert largest_error(sizes[:2], least[:2], most[:2]) > found  # fewer points say less


def test_a_sweep_is_a_key_and_numbers():
    assert parse("length=400,100,200,100") == ("length", [100, 200, 400])


@pytest.mark.parametrize("text", ["length", "length=", "length=7", "=1,2", "length=1,x", "a=0,1"])
def test_other_text_is_refused(text):
    with pytest.raises(ConfigError, match="two or more whole numbers"):
        parse(text)


@pytest.mark.parametrize(
    ("model", "key", "expected"),
    [
        ("tcn", "length", {"task.length": 60}),
        ("tcn", "batch", {"trainer.batch_size": 60}),
        ("tcn", "width", {"model.channels": [60] * 8}),
        ("gru", "width", {"model.hidden_size": 60}),
        ("llama", "width", {"model.dim": 60, "model.hidden_dim": 120}),
        ("lstm", "model.num_layers", {"model.num_layers": 60}),
    ],
)
def test_a_key_becomes_overrides(model, key, expected):
    words = [f"model={model}", "task=adding", "recipe=none"]
    config = compose([*words, *overrides(key, 60, compose(words))])
    for name, value in expected.items():
        node, _, leaf = name.partition(".")
        assert config[node][leaf] == value


def test_a_model_without_a_known_width_needs_a_key():
    config = compose(["model=tcn", "task=adding"])
    config["model"] = {"_target_": "mine.Model"}
    with pytest.raises(ConfigError, match="name a key"):
        overrides("width", 60, config)
