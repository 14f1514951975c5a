"""What the tests of the models share."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from seqbench import compiled
from seqbench.choices import read_choice
from seqbench.configuration import build

# By the width of their vectors in bytes: processors, and where torch sees that this one is as able.
PROCESSORS = {
    16: ("x86-64", ("DEFAULT", "AVX2", "AVX512")),
    32: ("haswell", ("AVX2", "AVX512")),
    64: ("skylake-avx512", ("AVX512",)),
}


@pytest.fixture(scope="session")
def make() -> Callable[..., torch.nn.Module]:
    """Builds a model by name, `make("tcn", spec, kernel_size=7)`; its YAML gives the rest."""

    def made(name: str, spec: Any, **values: Any) -> torch.nn.Module:
        return build("model", {"model": read_choice("model", name) | values}, spec)

    return made


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """These tensors are small: a second thread would only get in the way."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def same_bits() -> Callable[[Callable[[], list[torch.Tensor]]], None]:
    """Asserts that what gives some tensors gives the same bits with any number of threads."""

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


@pytest.fixture(params=PROCESSORS)
def vector_bytes(request, monkeypatch) -> Iterator[int]:
    """Lets compiled code use vectors of one width, as on another processor."""
    name, as_able = PROCESSORS[request.param]
    if torch.backends.cpu.get_cpu_capability() not in as_able:
        pytest.skip(f"this processor is no {name}")
    flags = tuple(flag.replace("native", name) for flag in compiled.FLAGS)
    monkeypatch.setattr(compiled, "FLAGS", flags)
    compiled.outcome.cache_clear()
    yield request.param
    compiled.outcome.cache_clear()
