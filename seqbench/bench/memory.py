"""How much memory a process comes to hold."""

import torch

from seqbench import machine


class Growth:
    """By how many bytes the most that is held exceeds what was held when this was made.

    On a GPU that is what tensors hold there. On a CPU it is the resident memory of the process.
    Where the system cannot reset an earlier peak (it is not Linux), growth below that one is not
    seen.

    Args:
        device: where to look.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        machine.reset_peak_memory(device)
        self.before = machine.peak_memory(device)

    @property
    def bytes(self) -> int:
        """The growth so far."""
        return machine.peak_memory(self.device) - self.before
