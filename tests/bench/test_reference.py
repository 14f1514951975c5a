import pytest
import torch

from seqbench import machine
from seqbench.bench.reference import Reference
from seqbench.errors import ConfigError, RunError


def broken(node, spec):
    raise ValueError("no such thing\nand more")


def test_the_reference_keeps_denormal_numbers_though_we_flush_them(small):
    config = small("model=lstm", "task=adding")
    device = machine.prepare(config)
    assert (torch.tensor(1e-40) * 0.5).item() == 0
    with Reference(config, device) as reference:
        assert reference.ready() == {"threads": 1, "flushes": False}
        times = reference.steps(3)
        assert len(times) == 3
        assert min(times) > 0
    assert not reference.process.is_alive()


def test_what_goes_wrong_in_it_costs_a_line(small):
    config = small("model=tcn", "task=adding")
    with (
        Reference(config, torch.device("cpu"), broken) as reference,
        pytest.raises(RunError, match="plain reference failed: ValueError: no such thing"),
    ):
        reference.ready()
    config["model"]["_target_"] = "mine.Model"
    with (
        Reference(config, torch.device("cpu")) as reference,
        pytest.raises(ConfigError, match=r"not of mine\.Model"),
    ):
        reference.ready()


def test_a_process_that_is_killed_is_missed(small):
    with Reference(small("model=tcn", "task=adding"), torch.device("cpu")) as reference:
        reference.ready()
        reference.process.kill()
        reference.process.join()
        with pytest.raises(RunError, match="died"):
            reference.steps(1)
