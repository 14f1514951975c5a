"""Test the inputs of a model and the targets of its outputs."""

import pytest
import torch

from seqbench.config.build import build
from seqbench.config.compose import compose
from seqbench.errors import ConfigError
from seqbench.experiment.build import build_task
from seqbench.models.sequence_model import SequenceModel
from seqbench.training.prediction import predict

WORDS = ["task=char_markov", "task.train_size=20000", "task.eval_size=500", "device=cpu"]


@pytest.fixture
def task():
    config = compose(["model=tcn", *WORDS])
    return build_task(config, build("trainer", config))


def tcn(task):
    torch.manual_seed(0)
    return build("model", compose(["model=tcn", *WORDS]), task.spec).double()


@pytest.mark.parametrize("step", [0, 1])
def test_a_context_that_is_skipped_changes_no_loss_and_no_gradient(task, step, monkeypatch):
    asked = []
    found = {}
    for skips in (True, False):
        model = tcn(task)
        monkeypatch.setattr(type(model), "skips_context", skips)
        model.register_forward_pre_hook(lambda _, args: asked.append(args[1:]))
        outputs, batch, _ = predict(model, task.train_batch(step), None, task.spec)
        loss = task.loss(outputs, batch)
        loss.backward()
        found[skips] = [loss, *(p.grad for p in model.parameters())]
        # Both have read all of it.
        assert batch.inputs.shape[1] == task.length
    assert asked == [(None, task.context if step else 0), (None, 0)]
    torch.testing.assert_close(found[True], found[False], rtol=1e-5, atol=1e-10)


def test_a_model_that_answers_in_its_context_all_the_same_is_refused(task):
    class Deaf(SequenceModel):
        skips_context = True

        def forward(self, x, state=None, context=0):
            return torch.zeros(*x.shape, task.spec.output_dim), None

    with pytest.raises(ConfigError, match=r"shape \(16, 192, 8\), expected \(16, 128, 8\)"):
        predict(Deaf(), task.train_batch(1), None, task.spec)
