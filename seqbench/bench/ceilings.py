"""Measure the machine's peak rates, and count the FLOPs of a training step.

The peak rates come from a large GEMM in the step's precision, and from the copy of a tensor larger
than any cache.
"""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from seqbench import kernels
from seqbench.bench.loops import TrainerLoop
from seqbench.models.rnn import Recurrent
from seqbench.training.trainer import DTYPES

# Rows of the GEMM's square matrices, and bytes to copy: large enough to reach the peak rate.
ROWS = {"cpu": 1024, "cuda": 8192}
COPIED = {"cpu": 2**27, "cuda": 2**30}
SECONDS = 0.5


@dataclass(frozen=True)
class Ceilings:
    """The machine's peak rates.

    Attributes:
        flops: floating-point operations per second of a large GEMM.
        bandwidth: bytes per second of a large copy, bytes read plus bytes written.
    """

    flops: float
    bandwidth: float


def ceilings(device: torch.device, precision: str) -> Ceilings:
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
    return Ceilings(
        flops=2 * rows**3 / best(lambda: torch.mm(a, b, out=product), device),
        bandwidth=2 * len(source) / best(lambda: target.copy_(source), device),
    )


def best(work: Callable[[], object], device: torch.device) -> float:
    """Call `work` for half a second after one warm-up, and return its shortest time in seconds."""
    times: list[float] = []
    work()
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        wait_for(device)
        begin = time.perf_counter()
        work()
        wait_for(device)
        times.append(time.perf_counter() - begin)
    return min(times)


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has finished its queued work; return at once for a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def step_flops(loop: TrainerLoop) -> tuple[int, str] | None:
    """Run one training step, and count the FLOPs of its GEMMs and convolutions.

    Attention counts in full, masked or not. Torch's counter sees only parts of recurrent models: a
    formula counts seqbench's, other recurrent models are not counted.

    Returns:
        The FLOPs and how they were counted; `None` if they cannot be counted.
    """
    model = loop.experiment.state.model
    if isinstance(model, Recurrent):
        return recurrent_flops(loop, model), "formula: 6 a weight and time step"
    if any(isinstance(module, nn.RNNBase | nn.RNNCellBase) for module in model.modules()):
        return None
    # The counter sees no operations inside a compiled model or a CUDA graph.
    compile, loop.trainer.compile = loop.trainer.compile, False
    graph, loop.trainer.graph = loop.trainer.graph, False
    # Nor those inside fused attention on a CPU or seqbench's kernels.
    on_cpu = loop.experiment.device.type == "cpu"
    with (
        kernels.disabled(),
        sdpa_kernel(SDPBackend.MATH) if on_cpu else nullcontext(),
        FlopCounterMode(display=False) as counter,
    ):
        loop.steps(1)
    loop.trainer.compile, loop.trainer.graph = compile, graph
    return counter.get_total_flops(), "counted by torch"


def recurrent_flops(loop: TrainerLoop, model: Recurrent) -> int:
    """Run one training step of a recurrent model, and return its FLOPs.

    Per time step each weight takes one multiplication and one addition in the forward pass, and two
    of each in the backward pass: 6 FLOPs.
    """
    before = loop.experiment.state.progress.tokens
    loop.steps(1)
    read = loop.experiment.state.progress.tokens - before
    answered = loop.trainer.batch_size if model.readout == "last" else read
    weights = sum(p.numel() for p in model.layers.parameters() if p.dim() == 2)
    return 6 * (weights * read + model.output.weight.numel() * answered)
