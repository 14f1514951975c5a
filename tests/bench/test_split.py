import time

import pytest

from seqbench.bench.loops import TrainerLoop
from seqbench.bench.split import PARTS, time_split


def slow(function):
    def slowed(*args, **kwargs):
        time.sleep(0.2)
        return function(*args, **kwargs)

    return slowed


@pytest.mark.parametrize("part", ["data", "forward", "optimizer"])
def test_the_slow_part_is_found(small, monkeypatch, part):
    loop = TrainerLoop(
        small(
            "model=tcn", "task=adding", "task.length=20", "trainer.accumulate=2", "trainer.clip=1"
        )
    )
    experiment = loop.experiment
    owner, name = {
        "data": (experiment.task, "encode"),
        "forward": (experiment.state.model, "forward"),
        "optimizer": (experiment.state.optimizer, "step"),
    }[part]
    loop.steps(1)
    monkeypatch.setattr(owner, name, slow(getattr(owner, name)))
    shares = time_split(loop, 2)
    assert tuple(shares) == PARTS
    assert sum(shares.values()) == pytest.approx(1)
    assert shares[part] > 0.5


def test_the_loop_is_left_as_it_was(small):
    loop = TrainerLoop(small("model=tcn", "task=adding"))
    watched = loop.trainer, loop.experiment.task, loop.experiment.state.optimizer
    before = [set(vars(item)) for item in watched]
    shares = time_split(loop, 2)
    assert shares["backward"] > shares["other"]
    assert [set(vars(item)) for item in watched] == before
