import time

import pytest
import torch

from seqbench.bench.loop import PARTS, Loop, time_split
from seqbench.experiment.build import Experiment
from seqbench.runs.events import EventLog
from seqbench.runs.observer import Observer
from seqbench.training.training import Training


@pytest.mark.parametrize(
    "words", ["model=tcn task=adding", "model=lstm task=char_markov", "model=gru task=copy"]
)
def test_the_loop_takes_the_steps_of_the_trainer(small, tmp_path, words):
    more = ("trainer.steps=7", "trainer.clip=0.1", "schedule=cosine", "model.dropout=0.1")
    config = small(*words.split(), *more)
    trained, looped = (Experiment(config) for _ in range(2))
    events = EventLog(tmp_path / "events.jsonl", 0)
    training = Training(trained.state, trained.task, events, tmp_path, Observer())
    torch.manual_seed(0)
    trained.trainer.fit(training, lambda: 0)
    events.close()
    torch.manual_seed(0)
    loop = Loop.of(looped)
    assert (len(loop.run_steps(4)), len(loop.run_steps(3))) == (4, 3)
    assert looped.state.progress.step == 7
    assert looped.state.progress.tokens == trained.state.progress.tokens
    expected = trained.state.model.state_dict()
    for name, weight in looped.state.model.state_dict().items():
        assert torch.equal(weight, expected[name]), name


def test_the_first_batch_follows_the_last_and_nothing_is_written(loop_of, tmp_path):
    loop = loop_of("model=tcn", "task=adding", "trainer.steps=2", "schedule=cosine")
    first = loop.next_batch().inputs
    assert all(seconds > 0 for seconds in loop.run_steps(4))
    assert torch.equal(loop.next_batch().inputs, first)
    assert list(tmp_path.iterdir()) == []


def slow(function):
    def slowed(*args, **kwargs):
        time.sleep(0.2)
        return function(*args, **kwargs)

    return slowed


@pytest.mark.parametrize("part", ["data", "forward", "backward", "optimizer"])
def test_the_slow_part_is_found(loop_of, monkeypatch, part):
    sizes = ("task.length=20", "trainer.accumulate=2", "trainer.clip=1")
    loop = loop_of("model=tcn", "task=adding", *sizes)
    model = loop.state.model
    if part == "backward":
        model.output.register_full_backward_hook(lambda *_: time.sleep(0.2))
    else:
        owner, name = {
            "data": (loop.task, "encode"),
            "forward": (model, "forward"),
            "optimizer": (loop.state.optimizer, "step"),
        }[part]
        monkeypatch.setattr(owner, name, slow(getattr(owner, name)))
    shares = time_split(loop, 2)
    assert tuple(shares) == PARTS
    assert sum(shares.values()) == pytest.approx(1)
    assert shares[part] > 0.5


def test_the_hooks_are_removed(loop_of):
    loop = loop_of("model=lstm", "task=adding")
    model = loop.state.model
    shares = time_split(loop, 2)
    assert shares["backward"] > shares["other"]
    assert not model._forward_hooks
    assert not model._forward_pre_hooks
    assert not any(p._backward_hooks for p in model.parameters())
