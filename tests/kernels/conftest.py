"""Compile the kernels once for all workers, for this processor and for other targets."""

import os
from collections.abc import Callable, Iterator
from itertools import product

import pytest
import torch
from filelock import FileLock

from seqbench.kernels import build

# Target -> the compiler's command, and the capabilities (named as in torch) of its processors.
TARGETS = {
    "x86-64-v2": ("c++ -march=x86-64-v2", {"DEFAULT", "AVX2", "AVX512"}),
    # gcc avoids chains of FMA on Zen 3.
    "haswell": ("c++ -march=haswell -mtune=znver3", {"AVX2", "AVX512"}),
    "x86-64-v4": ("c++ -march=x86-64-v4", {"AVX512"}),
}
LIBRARIES = [*product(build.PATHS, [torch.float32]), ("residual_block", torch.bfloat16)]
IN_FLOAT64 = list(product(build.PATHS, [torch.float64]))


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Have the kernels compiled for this processor, or for the target in CXX.

    `CXX="c++ -march=haswell" pytest` or `CXX=false pytest` run the tests for one target, or without
    a compiler.
    """
    compile_all("native", [*LIBRARIES, *IN_FLOAT64], tmp_path_factory)


@pytest.fixture(params=["native", *TARGETS], scope="module")
def target(request, native, tmp_path_factory) -> Iterator[str]:
    """Have the kernels compiled for each target that this processor can run.

    All but `native` are compiled without float64, and those without AVX-512 at -O1, in a quarter of
    the time. With AVX-512, gcc 12 computes wrong gradients of a residual block's weights at -O1 and
    -O2, in tiles of 7 and 8 rows. They are right at -O3, which users have, and at -O1 -fno-ivopts.
    """
    if request.param == "native":
        yield request.param
        return
    compiler, capabilities = TARGETS[request.param]
    if torch.backends.cpu.get_cpu_capability() not in capabilities:
        pytest.skip(f"this processor cannot run {request.param}")
    if os.environ.get("CXX"):
        pytest.skip("CXX names one target")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXX", compiler)
        if request.param != "x86-64-v4":
            patch.setattr(build, "FLAGS", [flag.replace("-O3", "-O1") for flag in build.FLAGS])
        build.compiled.cache_clear()
        compile_all(request.param, LIBRARIES, tmp_path_factory)
        yield request.param
    build.compiled.cache_clear()


def compile_all(
    target: str,
    libraries: list[tuple[str, torch.dtype]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Compile libraries; skip the test if that is impossible. Other workers wait meanwhile."""
    with FileLock(tmp_path_factory.getbasetemp().parent / f"{target}.lock"):
        if reason := build.unavailable_reason(libraries):
            pytest.skip(f"nothing was compiled: {reason}")


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
