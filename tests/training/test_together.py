"""Test models of several seeds that are trained as one."""

import pytest
import torch
from tape import NO_KERNEL
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from seqbench.config.build import build
from seqbench.config.compose import compose
from seqbench.kernels import disabled
from seqbench.spec import Features, SequenceSpec, Values
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

    def forward(self, x, state=None, context=0):
        return self.output(self.norm(self.frozen(x))), None


def state_of(model):
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    return TrainingState(model, optimizer, Constant(0), torch.amp.GradScaler("cpu", enabled=False))


def test_models_are_views_into_the_stack_with_their_buffers():
    torch.manual_seed(0)
    models, inputs = [Normed() for _ in range(3)], torch.randn(3, 5, 3)
    expected = [model(x)[0] for model, x in zip(models, inputs, strict=True)]
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


class Kernels(TorchDispatchMode):
    """Counts operations that compute something: on a GPU each is a kernel to be started."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        self.count += not func.is_view and name not in {*NO_KERNEL, "_unsafe_view", "detach"}
        return func(*args, **(kwargs or {}))


def test_a_step_of_eight_tcns_is_of_hardly_more_operations_than_one():
    spec = SequenceSpec(Features(2), Values(1), "last", 64)
    config, x = compose(["model=tcn", "recipe=none"]), torch.randn(8, 4, 64, 2)
    models = [build("model", config, spec) for _ in range(8)]
    counts = []
    # As on a GPU, where PyTorch runs the layers.
    with disabled():
        for model, inputs in ((models[0], x[0]), (Stack([state_of(m) for m in models]), x)):
            with Kernels() as kernels:
                outputs = model(inputs)
                outputs = outputs[0] if isinstance(outputs, tuple) else outputs
                outputs.square().sum().backward()
            counts.append(kernels.count)
    assert 150 < counts[0] < counts[1] < 1.4 * counts[0], counts
