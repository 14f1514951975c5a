import pytest
import torch

from seqbench.bench.loops import BareLoop, TrainerLoop

PAIRS = ["model=tcn task=adding", "model=lstm task=char_markov", "model=gru task=copy"]


@pytest.mark.parametrize("words", PAIRS)
def test_the_bare_loop_takes_the_trainers_steps(small, words):
    config = small(*words.split(), "trainer.clip=0.1", "schedule=cosine", "model.dropout=0")
    ours, theirs = (TrainerLoop(config) for _ in range(2))
    experiment = theirs.experiment
    bare = BareLoop(experiment.state, experiment.task, experiment.trainer)
    assert len(ours.steps(4)) == len(ours.steps(3)) + 1 == len(bare.steps(7)) - 3
    assert ours.experiment.state.progress.step == experiment.state.progress.step == 7
    trained = ours.experiment.state.model.state_dict()
    for name, weight in experiment.state.model.state_dict().items():
        assert torch.equal(weight, trained[name]), name


def test_more_steps_than_a_run_has_can_be_timed_and_nothing_is_left(small, tmp_path):
    loop = TrainerLoop(small("model=tcn", "task=adding", "trainer.steps=2"))
    assert all(seconds > 0 for seconds in loop.steps(5))
    assert loop.experiment.state.progress.best is None  # never evaluated
    assert list(tmp_path.iterdir()) == []
