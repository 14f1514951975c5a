"""Print how far the compiled kernels are from what this machine can do, as a Markdown table.

    python scripts/kernel_floors.py                 all kernels, in about half a minute
    python scripts/kernel_floors.py lstm residual   those whose name begins so

Times are CPU times, the best of many calls by one thread; forward saves what backward needs. The
floor of SwiGLU and RMSNorm is a copy that moves as many bytes. The others' is 2 operations for each
pair of factors in their products, over the peak rate of FMA. Taps before the sequence, masked
scores, exponentials, packing and loads do not count. Inputs of TCN and RNNs need no gradient.
"""

import argparse
import ctypes
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from seqbench import kernels, machine
from seqbench.config.compose import compose
from seqbench.kernels import build
from seqbench.models.attention import rotation
from seqbench.models.tcn import TCN
from seqbench.spec import Features, SequenceSpec, Values

LOOP = """
#include "vector.h"
extern "C" float fma_chains(const float *from, int64_t rounds) {
    Vector<float> x = load(from), y = load(from + LANES<float>), sum[12], total = {};
    for (int i = 0; i < 12; i++) sum[i] = load(from + i * LANES<float>);
    while (rounds--)
        for (int i = 0; i < 12; i++) sum[i] = fma(sum[i], x, y);
    for (int i = 0; i < 12; i++) total += sum[i];
    return horizontal_sum<float>(total);
}
"""
# Name, call, tensors that get gradients, and operations or bytes of forward and of backward.
Case = tuple[str, Callable[[], Any], list[Any], int, int]


def recurrent(kind: kernels.RecurrentKind, gates: int, hidden: int) -> Case:
    """Return a layer of the adding problem, all of whose outputs have gradients."""
    x, rows = torch.randn(32, 600, 2), gates * hidden
    shapes, scale = ((rows, 2), (rows, hidden), (rows,), (rows,)), hidden**-0.5
    w_ih, w_hh, *biases = weights = [(scale * torch.randn(s)).requires_grad_() for s in shapes]
    inputs, states = (2 * 32 * 600 * weight.numel() for weight in (w_ih, w_hh))
    call = lambda: kernels.recurrent(kind, x, (w_ih, w_hh, biases[0], biases[1]), None)[0]  # noqa: E731
    return f"{kind} {hidden}", call, weights, inputs + states, inputs + 2 * states


def residual_blocks(last: bool) -> Case:
    """Return the TCN of the adding problem, read at the last step or at every step."""
    spec = SequenceSpec(Features(2), Values(1), "last" if last else "every", 600)
    config = compose(["model=tcn", "task=adding"])["model"]
    model: Any = TCN(spec, **{k: v for k, v in config.items() if k[0] != "_"})
    shapes = model.shapes(600, 1 if last else 600)
    weights = [b.weights(32, s) for b, s in zip(model.blocks, shapes, strict=True)]
    steps, forward, backward = 600, 0, 0
    for w, (dilation, stride, middle, length) in zip(weights, shapes, strict=True):
        first, second = (w.direction1, steps, 1, middle), (w.direction2, middle, stride, length)
        for weight, end, gap, n in (first, second, (w.project_weight, length, 1, length)):
            if weight is not None:
                places = range(end - 1 - (n - 1) * gap, end, gap)
                taps = sum(min(weight.shape[2], place // dilation + 1) for place in places)
                forward += (work := 2 * 32 * taps * weight[:, :, 0].numel())
                backward += work if weight.shape[1] == 2 else 2 * work
        steps = length
    call = partial(kernels.residual_blocks, torch.randn(32, 600, 2), weights, shapes)
    tensors = [t for w in weights for t in w if t is not None]
    return f"residual blocks, {spec.readout}", call, tensors, forward, backward


def decoder() -> Iterator[Case]:
    """Yield the kernels of a LLaMA decoder; backward of attention computes the scores again."""
    q, k, v = (torch.randn(8, 256, 6, 64, requires_grad=True) for _ in range(3))
    product = q.numel() * 257  # of queries with the keys that the mask shows
    rotations = rotation(256, 64, 1e4, torch.float32, q.device)
    call: Any = partial(kernels.attention, q, k, v, *rotations, 256)
    yield "attention", call, [q, k, v], 2 * product, 5 * product
    gate, up = (torch.randn(8, 256, 1024, requires_grad=True) for _ in range(2))
    call, size = partial(kernels.swiglu, gate, up), 4 * gate.numel()
    yield "SwiGLU", call, [gate, up], 3 * size, 5 * size
    x, weight = (torch.randn(*shape, 384, requires_grad=True) for shape in ((8, 256), ()))
    call, size = partial(kernels.rms_norm, x, weight, 1e-5), 4 * x.numel()
    yield "RMSNorm", call, [x, weight], 2 * size, 3 * size


def best(work: Callable[[], object]) -> float:
    """Return the least CPU time of some work, in seconds."""
    times: list[float] = []
    end = time.perf_counter() + 0.5
    while len(times) < 5 or time.perf_counter() < end:
        begin = time.thread_time()
        work()
        times.append(time.thread_time() - begin)
    return min(times)


def peak() -> float:
    """Return the operations a second of 12 chains of FMA, compiled as the kernels are."""
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder, "chains.cpp"), Path(folder, "chains.so")
        source.write_text(LOOP)
        flags = (*build.FLAGS, *build.LINK_FLAGS, *build.target_flags(), f"-I{build.SOURCES}")
        build.run_compiler(*flags, str(source), "-o", str(made))
        chains = ctypes.CDLL(str(made)).fma_chains
    values, rounds = torch.ones(3 * build.vector_bytes("pointwise")), 10**6
    call = partial(chains, ctypes.c_void_p(values.data_ptr()), ctypes.c_int64(rounds))
    return 2 * len(values) * rounds / best(call)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    names = tuple(parser.parse_args().names) or ("",)
    machine.keep_memory()
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    matrix, flops = torch.randn(1024, 1024), peak()
    product = 2 * 1024**3 / best(lambda: matrix @ matrix)
    copied = best(partial(torch.Tensor.copy_, *torch.ones(2, 2**27, dtype=torch.uint8)))
    print(f"One thread: {flops / 1e9:.0f} GFLOP/s of FMA, {product / 1e9:.0f} of torch's product")
    print(f"of matrices; {2**28 / copied / 1e9:.0f} GB/s of a copy of 128 MiB.\n")
    print("| kernel | direction | ms | rate | floor, ms | time / floor |")
    print("|---|---|---:|---:|---:|---:|")
    layers = recurrent("lstm", 4, 130), recurrent("gru", 3, 150), recurrent("rnn_tanh", 1, 150)
    for name, forward, tensors, *works in (
        *layers,
        *map(residual_blocks, (True, False)),
        *decoder(),
    ):
        if not name.startswith(names):
            continue
        y = forward()
        backward = partial(torch.autograd.grad, y, tensors, torch.randn_like(y), retain_graph=True)
        calls: list[Callable[[], object]] = [forward, backward]
        for direction, call, work in zip(("forward", "backward"), calls, works, strict=True):
            seconds, floor, unit = best(call), work / flops, "GFLOP/s"
            if name in ("SwiGLU", "RMSNorm"):
                pair, unit = torch.ones(2, work // 2, dtype=torch.uint8), "GB/s"
                floor = best(partial(torch.Tensor.copy_, *pair))
            rate = f"{work / seconds / 1e9:.0f} {unit}"
            ms = f"{1e3 * seconds:.2f} | {rate} | {1e3 * floor:.2f} | {seconds / floor:.2f}"
            print(f"| {name} | {direction} | {ms} |", flush=True)


if __name__ == "__main__":
    main()
