"""The targets that kernels are compiled for, and what the tests of kernels share."""

import os
from collections.abc import Callable, Iterator
from itertools import product

import pytest
import torch
from filelock import FileLock

from seqbench.kernels import build

# For each target its compiler, and where torch sees that this processor can run it.
ALL, AVX2, AVX512 = ("DEFAULT", "AVX2", "AVX512"), ("AVX2", "AVX512"), ("AVX512",)
TARGETS = {
    "native": (None, ALL),
    "x86-64-v2": ("c++ -march=x86-64-v2", ALL),
    "haswell": ("c++ -march=haswell", AVX2),
    "znver3": ("c++ -march=haswell -mtune=znver3", AVX2),  # gcc avoids chains of FMA there
    "x86-64-v4": ("c++ -march=x86-64-v4", AVX512),
}
DTYPES = {
    "recurrent": (torch.float32, torch.float64),
    "residual_block": (torch.float32, torch.float64, torch.bfloat16),
    "attention": (torch.float32, torch.float64),
    "pointwise": (torch.float32, torch.float64),
}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """The tensors of these tests are small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=TARGETS, scope="module")
def target(request, tmp_path_factory) -> Iterator[str]:
    """Have kernels compiled for each target that this processor can run.

    `native` is what CXX says where the tests are started: `CXX="c++ -march=haswell" pytest` or
    `CXX=false pytest` run these tests for one target, or without a compiler.
    """
    compiler, capabilities = TARGETS[request.param]
    if torch.backends.cpu.get_cpu_capability() not in capabilities:
        pytest.skip(f"this processor cannot run {request.param}")
    if compiler is not None and os.environ.get("CXX"):
        pytest.skip("CXX names one target")
    with pytest.MonkeyPatch.context() as patch:
        if compiler is not None:
            patch.setenv("CXX", compiler)
        build.compiled.cache_clear()
        lock = tmp_path_factory.getbasetemp().parent / f"{request.param}.lock"
        with FileLock(lock):  # one worker compiles, the others wait
            pairs = [pair for s, dtypes in DTYPES.items() for pair in product([s], dtypes)]
            reason = build.unavailable_reason(pairs)
        if reason is not None:
            pytest.skip(f"nothing was compiled: {reason}")
        yield request.param
    build.compiled.cache_clear()


@pytest.fixture
def same_bits() -> Callable[[Callable[[], list[torch.Tensor]]], None]:
    """Assert that a computation gives the same bits with 1 to 16 threads."""

    def check(compute: Callable[[], list[torch.Tensor]]) -> None:
        threads = torch.get_num_threads()
        found = []
        try:
            for count in (1, 2, 3, 16):
                torch.set_num_threads(count)
                found.append(compute())
        finally:
            torch.set_num_threads(threads)
        for others in found[1:]:
            for one, other in zip(found[0], others, strict=True):
                assert torch.equal(one, other)

    return check
