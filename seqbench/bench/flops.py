"""Count the FLOPs of a training step, and measure the peak rates of a device."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from seqbench import kernels
from seqbench.bench.loop import Loop, wait_for
from seqbench.models.rnn import Recurrent
from seqbench.training.trainer import DTYPES

# Rows of the GEMM's square matrices, and bytes to copy: large enough to reach the peak rate.
ROWS = {"cpu": 1024, "cuda": 8192}
COPIED = {"cpu": 2**27, "cuda": 2**30}
SECONDS = 0.5


@dataclass(frozen=True)
class PeakRates:
    """The peak rates of a device.

    Attributes:
        flops: floating-point operations per second of a large GEMM.
        bandwidth: bytes per second of a large copy, bytes read plus bytes written.
    """

    flops: float
    bandwidth: float


def peak_rates(device: torch.device, precision: str) -> PeakRates:
    """Measure the peak rates of a device; a CPU uses torch's current number of threads.

    Args:
        device: the device.
        precision: dtype of the GEMM: `fp32`, `bf16` or `fp16`.
    """
    rows, dtype = ROWS[device.type], DTYPES.get(precision, torch.float32)
    a, b = torch.randn(2, rows, rows, device=device).to(dtype)
    product = torch.empty_like(a)
    source = torch.ones(COPIED[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return PeakRates(
        flops=2 * rows**3 / shortest_time(lambda: torch.mm(a, b, out=product), device),
        bandwidth=2 * len(source) / shortest_time(lambda: target.copy_(source), device),
    )


def shortest_time(work: Callable[[], object], device: torch.device) -> float:
    """Call `work` at least once and for half a second, and return its shortest time in seconds."""
    times: list[float] = []
    while sum(times) < SECONDS:
        wait_for(device)
        begin = time.perf_counter()
        work()
        wait_for(device)
        times.append(time.perf_counter() - begin)
    return min(times)


def step_flops(loop: Loop) -> tuple[int, str] | None:
    """Run one training step, and count the FLOPs of its GEMMs and convolutions.

    FLOPs of attention include masked positions. Torch's counter sees only parts of recurrent
    models. Those of seqbench are counted by a formula: per time step each weight takes one
    multiplication and one addition in the forward pass, and two of each in the backward pass.

    Returns:
        The FLOPs and how they were counted; `None` for other recurrent models.
    """
    model = loop.state.model
    if isinstance(model, Recurrent):
        steps_read = loop.plain_step().tokens
        outputs = loop.trainer.batch_size if model.readout != "every" else steps_read
        weights = sum(p.numel() for p in model.layers.parameters() if p.dim() == 2)
        flops = 6 * (weights * steps_read + model.output.weight.numel() * outputs)
        return flops, "formula: 6 FLOPs per weight and time step"
    if any(isinstance(module, nn.RNNBase | nn.RNNCellBase) for module in model.modules()):
        return None
    # The counter sees no operations inside seqbench's kernels or, on a CPU, fused attention.
    with (
        kernels.disabled(),
        sdpa_kernel(SDPBackend.MATH) if loop.device.type == "cpu" else nullcontext(),
        FlopCounterMode(display=False) as counter,
    ):
        loop.plain_step()
    return counter.get_total_flops(), "counted by torch"
