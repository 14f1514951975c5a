"""How much memory a process comes to hold."""

import ctypes
from pathlib import Path

import torch

from seqbench import machine

PROC = Path("/proc/self")


class Growth:
    """By how many bytes the most that is held exceeds what was held when this was made.

    On a GPU that is what tensors hold there. On a CPU it is the resident memory of the process.
    Where the system cannot forget an earlier maximum
    (it is not Linux), growth below that one is not seen.

    Args:
        device: where to look.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.before = torch.cuda.memory_allocated(device)
            return
        self.by_proc = can_forget()
        self.before = resident("VmRSS") if self.by_proc else machine.peak_memory(device)

    @property
    def bytes(self) -> int:
        """The growth so far."""
        by_proc = self.device.type == "cpu" and self.by_proc
        most = resident("VmHWM") if by_proc else machine.peak_memory(self.device)
        return max(0, most - self.before)


def can_forget() -> bool:
    """Give back memory that is free, and forget how much was held; `False` where that cannot be."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # else what the data left behind would be used unseen
        (PROC / "clear_refs").write_text("5", encoding="ascii")  # see proc(5)
    except (AttributeError, OSError):
        return False
    return True


def resident(name: str) -> int:
    """Bytes of this process: `VmRSS`, now, or `VmHWM`, at most."""
    lines = (PROC / "status").read_text(encoding="ascii", errors="replace").splitlines()
    line = next(line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
