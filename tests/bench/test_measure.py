import pytest
import torch

from seqbench.bench.ceilings import Ceilings
from seqbench.bench.measure import Spread, measure, take_turns
from seqbench.errors import ConfigError, RunError

LIMITS = Ceilings(flops=1e9, bandwidth=1e9)


class Steady:
    """Takes steps of so many seconds, round after round."""

    def __init__(self, *rounds):
        self.rounds = [rounds[0], *rounds]  # the warm-up, too

    def steps(self, count):
        return [self.rounds.pop(0)] * count


def test_a_spread_is_the_median_and_the_tenth_and_ninetieth_percentile():
    assert Spread.of(list(range(101))) == Spread(50, 10, 90)
    assert Spread.of([3.0]) == Spread(3, 3, 3)


def test_each_round_gives_a_ratio():
    found = take_turns(Steady(1, 2, 4), Steady(3, 4, 4), steps=2, rounds=3)
    assert found.ours == [1, 1, 2, 2, 4, 4]
    assert found.reference == [3, 3, 4, 4, 4, 4]
    assert found.ratios == [3, 2, 1]


def test_rounds_are_as_long_as_the_steps_allow():
    assert len(take_turns(Steady(0.1), None, rounds=1).ours) == 15
    assert len(take_turns(Steady(100), None, rounds=1).ours) == 2
    assert take_turns(Steady(100), None, rounds=1).ratios == []


def test_a_tcn_read_at_the_end_is_faster_than_the_plain_one(small):
    config = small("model=tcn", "task=adding", "task.length=600", "trainer.batch_size=8")
    found = measure(config, reference=True, steps=3, rounds=3, limits=LIMITS)
    assert found.ratio > 2  # several times, but others may use the machine
    assert found.ratio == pytest.approx(found.reference_step_ms / found.step_ms, rel=0.8)
    assert found.reference_flushes_denormals is False
    assert (found.threads, found.batch_size, found.length) == (1, 8, 600)
    assert found.samples_per_second == pytest.approx(8000 / found.step_ms)
    assert found.tokens_per_second == pytest.approx(600 * found.samples_per_second)
    assert found.step_ms_p10 <= found.step_ms <= found.step_ms_p90
    assert sum(found.split.values()) == pytest.approx(1)
    assert found.share_of_peak == found.flops_per_second / 1e9
    assert found.peak_memory_bytes > 4 * found.parameters


def test_a_carried_state_reads_no_context(small):
    config = small("model=lstm", "task=char_markov", "model.hidden_size=8")
    found = measure(config, steps=20, rounds=2, limits=LIMITS)
    # After the first segment of a text its windows hold new symbols only.
    per_sequence = found.tokens_per_second / found.samples_per_second
    new = config["task"]["length"] - config["task"]["context"]
    assert new < per_sequence < config["task"]["length"]


def test_a_larger_batch_takes_more_memory(small):
    words = ("model=lstm", "task=adding", "task.length=200")
    one, other = (
        measure(small(*words, f"trainer.batch_size={n}"), steps=1, rounds=1, limits=LIMITS)
        for n in (4, 64)
    )
    assert other.peak_memory_bytes > 2 * one.peak_memory_bytes


def test_a_model_of_the_users_without_a_plain_form_costs_a_line(small):
    config = small("model=tcn", "task=adding")
    config["model"] = {"_target_": "mine.Model"}
    with pytest.raises(ConfigError, match=r"not of mine\.Model"):
        measure(config, reference=True, limits=LIMITS)


def test_a_step_that_fails_costs_a_line(small, monkeypatch):
    def fails(self, x):
        raise ValueError("one\ntwo")

    monkeypatch.setattr("seqbench.models.tcn.TCN.forward", fails)
    with pytest.raises(RunError, match=r"a training step failed: ValueError: one$"):
        measure(small("model=tcn", "task=adding"), limits=LIMITS)


@pytest.mark.gpu
def test_on_a_gpu(small):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    found = measure(small("model=tcn", "task=adding", "device=cuda"), reference=True)
    assert found.ratio > 1
    assert found.peak_memory_bytes > 4 * found.parameters
