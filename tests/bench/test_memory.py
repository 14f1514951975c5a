import pytest
import torch

from seqbench.bench.memory import Growth
from seqbench.machine import PROC

SIZE = 2**26


@pytest.mark.skipif(not (PROC / "clear_refs").exists(), reason="only Linux can reset a peak")
def test_it_sees_what_was_held_for_a_moment_and_forgets_it_for_the_next():
    device = torch.device("cpu")
    first = Growth(device)
    torch.ones(SIZE, dtype=torch.uint8)
    assert SIZE * 0.9 < first.bytes < SIZE * 1.5
    second = Growth(device)
    torch.ones(SIZE // 4, dtype=torch.uint8)
    assert SIZE * 0.2 < second.bytes < SIZE * 0.6


def test_where_nothing_can_be_forgotten_it_is_what_the_process_holds_more(monkeypatch):
    monkeypatch.setattr("seqbench.machine.PROC", PROC / "nowhere")
    held = iter([5, 12])
    monkeypatch.setattr("seqbench.machine.peak_memory", lambda device: next(held))
    assert Growth(torch.device("cpu")).bytes == 7
