import os

import pytest
import torch

from seqbench import SPIN, SPIN_BY_DEFAULT, machine
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


def tells(node, spec):
    raise RunError(f"it spins {os.environ['GOMP_SPINCOUNT']}")


@pytest.mark.parametrize(("asked", "found"), [(SPIN, SPIN_BY_DEFAULT), ("77", "77")])
def test_its_threads_wait_as_torch_lets_them(small, monkeypatch, asked, found):
    monkeypatch.setenv("GOMP_SPINCOUNT", asked)
    with (
        Reference(small("model=tcn", "task=adding"), torch.device("cpu"), tells) as reference,
        pytest.raises(RunError, match=f"it spins {found}$"),
    ):
        reference.ready()
    assert os.environ["GOMP_SPINCOUNT"] == asked


def test_a_process_that_is_killed_is_missed(small):
    with Reference(small("model=tcn", "task=adding"), torch.device("cpu")) as reference:
        reference.ready()
        reference.process.kill()
        reference.process.join()
        with pytest.raises(RunError, match="died"):
            reference.steps(1)
