"""Models of several seeds as one: what they share, and what they do not."""

import pytest
import torch
from torch import nn

from seqbench.training.schedules import Constant
from seqbench.training.state import TrainingState
from seqbench.training.together import Stack, clip


class Normed(nn.Module):
    """A model with a buffer that training changes, and a weight that it does not."""

    def __init__(self):
        super().__init__()
        self.frozen = nn.Linear(3, 4).requires_grad_(False)
        self.norm = nn.BatchNorm1d(4)
        self.output = nn.Linear(4, 2)

    def forward(self, x):
        return self.output(self.norm(self.frozen(x)))


def state_of(model):
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    return TrainingState(model, optimizer, Constant(0), torch.amp.GradScaler("cpu", enabled=False))


def test_models_are_views_into_the_stack_with_their_buffers():
    torch.manual_seed(0)
    models, inputs = [Normed() for _ in range(3)], torch.randn(3, 5, 3)
    expected = [model(x) for model, x in zip(models, inputs, strict=True)]
    means = [model.norm.running_mean.clone() for model in models]
    for model in models:
        model.norm.reset_running_stats()
    stack = Stack([state_of(model) for model in models])
    outputs = stack(inputs)
    for i, model in enumerate(models):
        assert torch.allclose(outputs[i], expected[i], atol=1e-6)
        assert torch.allclose(model.norm.running_mean, means[i], atol=1e-7)
        assert model.norm.num_batches_tracked == 1
    trainable = dict(zip(stack.names, stack.weights, strict=True))
    assert [name for name, weight in trainable.items() if not weight.requires_grad] == [
        "frozen.weight",
        "frozen.bias",
    ]
    with torch.no_grad():
        trainable["output.bias"][1] += 7
    assert models[1].output.bias.mean() > 5 > models[0].output.bias.mean()


def test_each_seeds_gradient_is_clipped_by_its_own_norm():
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.zeros(3, *shape)) for shape in ((), (4,), (2, 5))]
    for weight in weights:
        weight.grad = torch.randn_like(weight) * torch.tensor([0.01, 1, 100]).view(
            3, *[1] * (weight.dim() - 1)
        )
    alone = [[nn.Parameter(w[i].detach().clone()) for w in weights] for i in range(3)]
    for i, own in enumerate(alone):
        for parameter, weight in zip(own, weights, strict=True):
            parameter.grad = weight.grad[i].clone()
    norms = clip(weights, 0.5)
    for i, own in enumerate(alone):
        assert nn.utils.clip_grad_norm_(own, 0.5).item() == pytest.approx(norms[i].item())
        for parameter, weight in zip(own, weights, strict=True):
            assert torch.allclose(parameter.grad, weight.grad[i])
    assert norms[0] < 0.5 < norms[1]  # one that was left as it was, too
