"""Measure how much a process's peak memory grows."""

import torch

from seqbench import machine


class Growth:
    """Growth of the peak memory since construction.

    On a GPU it counts the memory of tensors, on a CPU the resident memory of the process. Only
    Linux can reset a process's peak; elsewhere growth below an earlier peak is not seen.

    Args:
        device: the device to measure.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        machine.reset_peak_memory(device)
        self.before = machine.peak_memory(device)

    @property
    def bytes(self) -> int:
        """Return the growth so far, in bytes."""
        return machine.peak_memory(self.device) - self.before
