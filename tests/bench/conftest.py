"""Small configs for the tests of measurements."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from seqbench.bench.loop import Loop
from seqbench.config.compose import compose
from seqbench.experiment.build import Experiment


@pytest.fixture
def small(tmp_path, monkeypatch) -> Callable[..., dict[str, Any]]:
    """Compose a small config; a file that a test should not write would be in `tmp_path`."""
    monkeypatch.chdir(tmp_path)

    def composed(*words: str) -> dict[str, Any]:
        return compose(["budget=smoke", "threads=1", *words])

    return composed


@pytest.fixture
def loop_of(small) -> Callable[..., Loop]:
    """Build the loop of a small config."""

    def built(*words: str) -> Loop:
        config = small(*words)
        return Loop.of(Experiment(config))

    return built


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Restore the number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
