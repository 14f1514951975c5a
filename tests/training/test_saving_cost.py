"""Test the cost of saving checkpoints at the default interval relative to training."""

import time

import pytest

from seqbench.config.compose import compose
from seqbench.experiment.build import Experiment
from seqbench.runs.events import EventLog
from seqbench.training import checkpoint
from seqbench.training.state import weights
from seqbench.training.trainer import Trainer

# Five times what is promised: others may write to the same disk at the same time.
LARGEST_SHARE = 0.05
# The default task and model; and as many weights as any text model of ours has.
CONFIGURATIONS = {
    "tcn": ["model=tcn", "task=adding", "budget=quick"],
    "llama": [
        *("model=llama", "task=char_markov", "recipe=none", "trainer.batch_size=2"),
        *("model.num_layers=6", "model.dim=200", "model.hidden_dim=536", "model.num_heads=4"),
    ],
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_saving_takes_a_small_share_of_the_time(name, tmp_path):
    config = compose([*CONFIGURATIONS[name], "threads=1", f"output_dir={tmp_path}"])
    experiment = Experiment(config)
    trainer: Trainer = experiment.trainer
    state, task = experiment.state, experiment.task
    total = trainer.total_steps(task)
    assert trainer.checkpoint_every is trainer.eval_every is None
    interval = total // 20

    def train() -> None:
        trainer.backward(state.model, task, task.train_batch(0), None, state.scaler)
        state.optimizer.step()
        state.optimizer.zero_grad()

    events = EventLog(tmp_path / "events.jsonl", 0)

    def save() -> None:
        events.append({"step": 1, "loss": 0.5})
        events.sync()
        checkpoint.keep_previous(tmp_path)
        state.save(tmp_path / checkpoint.LAST, events.offset)
        checkpoint.save(tmp_path / checkpoint.BEST, weights(state.model), {"step": 1})

    train()  # the optimizer makes its slots
    share = shortest(save) / (interval * shortest(train))
    events.close()
    assert share < LARGEST_SHARE


def shortest(action) -> float:
    """Return the shortest duration of an action, in seconds."""
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        action()
        taken.append(time.perf_counter() - began)
    return min(taken)
