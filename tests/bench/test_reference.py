import os
from pathlib import Path

import pytest
import torch
from patience import until

from seqbench import SPIN, SPIN_BY_DEFAULT, machine
from seqbench.bench.reference import Reference, serve
from seqbench.errors import RunError, SeqbenchError
from seqbench.models.plain import build_plain


def broken(node, spec):
    raise ValueError("no such thing\nand more")


def test_the_reference_keeps_denormals_and_is_missed_when_it_is_killed(small):
    config = small("model=lstm", "task=adding")
    device = machine.prepare(config)
    assert (torch.tensor(1e-40) * 0.5).item() == 0
    with Reference(config, device) as reference:
        assert reference.ready() == {"threads": 1, "flushes": False}
        times = reference.run_steps(3)
        assert len(times) == 3
        assert min(times) > 0
        reference.process.kill()
        reference.process.join()
        with pytest.raises(RunError, match="died"):
            reference.run_steps(1)
    assert not reference.process.is_alive()


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="only Linux has /proc")
@pytest.mark.parametrize(("asked", "found"), [(SPIN, SPIN_BY_DEFAULT), ("77", "77")])
def test_its_threads_wait_as_torch_lets_them(small, monkeypatch, asked, found):
    monkeypatch.setenv("GOMP_SPINCOUNT", asked)
    with Reference(small("model=tcn", "task=adding"), torch.device("cpu")) as reference:
        given = Path(f"/proc/{reference.process.pid}/environ")
        setting = f"GOMP_SPINCOUNT={found}".encode()
        until(lambda: setting in given.read_bytes().split(b"\0"))
    assert os.environ["GOMP_SPINCOUNT"] == asked


class Pipe(list):
    """Keep what is sent; nothing can be received."""

    send = list.append

    def recv(self):
        raise EOFError


@pytest.mark.parametrize(
    ("build_model", "message"),
    [
        (broken, "the reference process failed: ValueError: no such thing"),
        (build_plain, "only models of seqbench have a plain form, the reference, not mine.Model"),
    ],
)
def test_an_error_in_the_process_is_sent_as_one_line(small, build_model, message):
    config = small("model=tcn", "task=adding")
    config["model"]["_target_"] = "mine.Model"
    pipe = Pipe()
    serve(pipe, config, "cpu", 1, build_model)
    (sent,) = pipe
    assert isinstance(sent, SeqbenchError)
    assert str(sent) == message
