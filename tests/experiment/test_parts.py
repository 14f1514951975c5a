"""Parts of a run are built from its config."""

import re

import pytest
import torch
from torch import nn

from seqbench.config.compose import compose
from seqbench.errors import ConfigError
from seqbench.experiment.build import Experiment, build_optimizer
from seqbench.runs.identity import run_id


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "rmsprop"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_an_optimizer_updates_real_and_complex_parameters(name, dtype):
    config = compose(["model=tcn", "task=adding", "recipe=none", f"optimizer={name}"])
    weight = nn.Parameter(torch.ones(3, dtype=dtype))
    optimizer = build_optimizer(config, [weight])
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert (weight.real < 1).all()


LLAMA = ["model=llama", "model.dim=8", "model.num_heads=2", "model.num_layers=1"]


@pytest.mark.parametrize(
    ("words", "spared"),
    [
        (["task=char_markov", *LLAMA], r"embedding|.*norm\.weight"),
        (["task=char_markov", *LLAMA, "model.tied=true"], r"output|embedding|.*norm\.weight"),
        (["task=adding", *LLAMA], r".*norm\.weight"),
        (["task=adding", "model=tcn", "model.channels=[4,4]"], r".*(bias|original0)"),
        (["task=char_markov", "model=lstm", "model.hidden_size=4"], r"embedding|.*bias.*"),
    ],
)
def test_only_matrices_decay(words, spared):
    config = compose([*words, "budget=smoke", "recipe=none", "threads=1", "trainer.decay=matrices"])
    config["optimizer"] |= {"lr": 0.5, "weight_decay": 1.0, "_target_": "torch.optim.AdamW"}
    experiment = Experiment(config)
    model = experiment.state.model
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    experiment.state.optimizer.step()
    kept = {name for name, p in model.named_parameters() if torch.equal(p, before[name])}
    # A parameter that is zero before stays so in any case.
    assert kept == {n for n, p in before.items() if re.match(spared, n) or not p.any()}
    assert {n for n in kept if before[n].any()}
    for name, parameter in model.named_parameters():
        if name not in kept:
            assert torch.allclose(parameter, before[name] / 2)


def test_what_decays_by_default_is_no_part_of_the_id():
    words = ["task=adding", "model=llama"]
    plain, all_, matrices = (
        run_id(compose([*words, *more]))
        for more in ([], ["trainer.decay=all"], ["trainer.decay=matrices"])
    )
    assert plain == all_ != matrices


def test_matrices_decay_only_with_a_weight_decay():
    words = ["task=adding", "model=gru", "budget=smoke", "trainer.decay=matrices", "threads=1"]
    with pytest.raises(ConfigError, match=r"needs optimizer\.weight_decay above 0"):
        Experiment(compose(words))
    with pytest.raises(ConfigError, match="must be one of all, matrices, not 'none'"):
        compose([*words, "trainer.decay=none"])
