"""What the machine can do at most, and how much arithmetic a training step asks of it.

Measured, not looked up: the rate of a product of large matrices in the step's precision, and that
of copying a tensor larger than any cache.
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

# Rows of the matrices, and bytes to copy, large enough to be at the ceiling.
ROWS = {"cpu": 1024, "cuda": 8192}
COPIED = {"cpu": 2**27, "cuda": 2**30}
SECONDS = 0.5


@dataclass(frozen=True)
class Ceilings:
    """The machine's rates.

    Attributes:
        flops: floating-point operations a second of a matrix product.
        bandwidth: bytes a second of a copy, those read and those written.
    """

    flops: float
    bandwidth: float


def ceilings(device: torch.device, precision: str) -> Ceilings:
    """Measure a device.

    Args:
        device: with as many threads as are set.
        precision: `fp32`, `bf16` or `fp16`: what matrices are multiplied in.
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
    """The shortest of the times that some work took, in seconds."""
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
    """Wait until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def step_flops(loop: TrainerLoop) -> tuple[int, str] | None:
    """Operations of one training step's products and convolutions, and how they were counted.

    Attention counts in full, masked or not. Of recurrent networks torch sees only parts, so that
    ours are counted by a formula, and others are not.

    Returns:
        `None` if they cannot be counted.
    """
    model = loop.experiment.state.model
    if isinstance(model, Recurrent):
        return recurrent_flops(loop, model), "formula: 6 a weight and time step"
    if any(isinstance(module, nn.RNNBase | nn.RNNCellBase) for module in model.modules()):
        return None
    # Compiled or captured, it would be opaque.
    compile, loop.trainer.compile = loop.trainer.compile, False
    graph, loop.trainer.graph = loop.trainer.graph, False
    # The fused kernels of attention on a CPU are opaque, too, and so are compiled layers.
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
    """Each weight is multiplied and added once a time step forward, and twice backward."""
    before = loop.experiment.state.progress.tokens
    loop.steps(1)
    read = loop.experiment.state.progress.tokens - before
    answered = loop.trainer.batch_size if model.readout == "last" else read
    weights = sum(p.numel() for p in model.layers.parameters() if p.dim() == 2)
    return 6 * (weights * read + model.output.weight.numel() * answered)
