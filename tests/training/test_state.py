import random

import numpy as np
import pytest
import torch
from torch import nn

from seqbench.errors import RunError
from seqbench.training.state import (
    load_optimizer_state,
    load_random_state,
    load_weights,
    optimizer_state,
    random_state,
    weights,
)


class Tied(nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.embedding = nn.Embedding(5, width)
        self.norm = nn.BatchNorm1d(width)
        self.output = nn.Linear(width, 5, bias=False)
        self.output.weight = self.embedding.weight


def test_shared_weights_are_kept_once_and_stay_shared():
    torch.manual_seed(0)
    model, other = Tied(), Tied()
    kept = weights(model)
    assert "model.embedding.weight" in kept
    assert "model.output.weight" not in kept
    load_weights(other, {name: tensor.clone() for name, tensor in kept.items()})
    assert torch.equal(other.output.weight, model.embedding.weight)
    assert other.output.weight is other.embedding.weight


def test_buffers_are_weights_too():
    model, other = Tied(), Tied()
    model.norm(torch.randn(4, 3))
    load_weights(other, weights(model))
    assert other.norm.num_batches_tracked == 1
    assert torch.equal(other.norm.running_mean, model.norm.running_mean)


def test_weights_of_another_model_are_refused():
    with pytest.raises(RunError, match=r"the checkpoint does not match this model: .*"):
        load_weights(Tied(), weights(nn.Linear(2, 2)))
    partial = weights(Tied())
    partial.pop("model.norm.bias")
    with pytest.raises(RunError, match=r"match this model: norm\.bias"):
        load_weights(Tied(), partial)


def test_weights_of_another_size_are_refused():
    with pytest.raises(RunError, match="match this model"):
        load_weights(Tied(width=4), weights(Tied(width=3)))


OPTIMIZERS = {
    "adam": lambda p: torch.optim.Adam(p, 0.1, betas=(0.5, 0.6)),
    "amsgrad": lambda p: torch.optim.AdamW(p, 0.1, amsgrad=True),
    "momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
    "sgd": lambda p: torch.optim.SGD(p, 0.1),
    "centered": lambda p: torch.optim.RMSprop(p, 0.1, momentum=0.5, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.1),
    "nadam": lambda p: torch.optim.NAdam(p, 0.1),
    "asgd": lambda p: torch.optim.ASGD(p, 0.1),
    "rprop": lambda p: torch.optim.Rprop(p, 0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_goes_on_from_what_was_kept(name):
    def steps(model, optimizer, numbers):
        for number in numbers:
            optimizer.zero_grad()
            generator = torch.Generator().manual_seed(number)
            model(torch.randn(4, 3, generator=generator)).square().sum().backward()
            optimizer.step()

    torch.manual_seed(0)
    whole, second = nn.Linear(3, 2), nn.Linear(3, 2)
    optimizer = OPTIMIZERS[name](whole.parameters())
    steps(whole, optimizer, range(3))
    second.load_state_dict(whole.state_dict())
    tensors, facts = optimizer_state(optimizer)
    tensors = {key: tensor.clone() for key, tensor in tensors.items()}
    resumed = OPTIMIZERS[name](second.parameters())
    load_optimizer_state(resumed, tensors, facts)
    steps(whole, optimizer, range(3, 6))
    steps(second, resumed, range(3, 6))
    for a, b in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_every_random_generator_goes_on():
    def draw():
        # Two numbers of a Gaussian come as a pair: the second waits in the generator's state.
        return [torch.rand(3).tolist(), np.random.normal(), random.gauss(0, 1), random.random()]

    draw()
    tensors, facts = random_state(torch.device("cpu"))
    expected = [draw() for _ in range(3)]
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(1)
    load_random_state(tensors, facts, torch.device("cpu"))
    assert [draw() for _ in range(3)] == expected
