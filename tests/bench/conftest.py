"""What the tests of the measuring share: small configurations."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from seqbench.config.compose import compose


@pytest.fixture
def small(tmp_path, monkeypatch) -> Callable[..., dict[str, Any]]:
    """Composes a small configuration; what it would write goes to an empty folder."""
    monkeypatch.chdir(tmp_path)

    def composed(*words: str) -> dict[str, Any]:
        return compose(["budget=smoke", "threads=1", *words])

    return composed


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """As many threads as before."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
