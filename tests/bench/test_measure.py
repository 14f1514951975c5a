import pytest
import torch

from seqbench.bench.flops import PeakRates
from seqbench.bench.measure import Spread, measure, time_alternately
from seqbench.errors import RunError

LIMITS = PeakRates(flops=1e9, bandwidth=1e9)


class Steady:
    """Steps whose seconds are given for each round."""

    def __init__(self, *rounds):
        self.rounds = [rounds[0], *rounds]  # the warm-up, too

    def run_steps(self, count):
        return [self.rounds.pop(0)] * count


def test_a_spread_is_the_median_and_the_tenth_and_ninetieth_percentile():
    assert Spread.of(list(range(101))) == Spread(50, 10, 90)
    assert Spread.of([3.0]) == Spread(3, 3, 3)


def test_each_round_gives_a_ratio():
    found = time_alternately(Steady(1, 2, 4), Steady(3, 4, 4), steps=2, rounds=3)
    assert found.seqbench == [1, 1, 2, 2, 4, 4]
    assert found.reference == [3, 3, 4, 4, 4, 4]
    assert found.ratios == [3, 2, 1]


def test_rounds_are_as_long_as_the_steps_allow():
    assert len(time_alternately(Steady(0.1), None, rounds=1).seqbench) == 15
    assert len(time_alternately(Steady(100), None, rounds=1).seqbench) == 2
    assert time_alternately(Steady(100), None, rounds=1).ratios == []


def test_a_tcn_read_at_the_end_is_faster_than_the_plain_one(small):
    config = small("model=tcn", "task=adding", "task.length=300", "trainer.batch_size=8")
    found = measure(config, reference=True, steps=2, rounds=3, limits=LIMITS)
    assert found.ratio > 2  # several times, but others may use the machine
    assert found.ratio == pytest.approx(found.reference_step_ms / found.step_ms, rel=0.8)
    assert found.reference_flushes_denormals is False
    assert (found.threads, found.batch_size, found.length) == (1, 8, 300)
    assert found.samples_per_second == pytest.approx(8000 / found.step_ms)
    assert found.tokens_per_second == pytest.approx(300 * found.samples_per_second)
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


def test_the_peak_of_a_measurement_is_its_own(small):
    words = ("model=lstm", "task=adding", "task.length=200", "model.hidden_size=64")
    large, less = (
        measure(small(*words, f"trainer.batch_size={n}"), steps=1, rounds=1, limits=LIMITS)
        for n in (64, 4)
    )
    assert large.peak_memory_bytes > 2 * less.peak_memory_bytes


def test_a_step_that_fails_costs_a_line(small, monkeypatch):
    def fails(self, x, state=None, context=0):
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
