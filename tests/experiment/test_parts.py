"""Parts of a run are built from its config."""

import pytest
import torch
from torch import nn

from seqbench.config.compose import compose
from seqbench.experiment.build import build_optimizer


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "rmsprop"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_an_optimizer_updates_real_and_complex_parameters(name, dtype):
    config = compose(["model=tcn", "task=adding", "recipe=none", f"optimizer={name}"])
    weight = nn.Parameter(torch.ones(3, dtype=dtype))
    optimizer = build_optimizer(config, [weight])
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert (weight.real < 1).all()
