"""What the tests of the models share."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from seqbench.config.build import build
from seqbench.config.choices import read_choice


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
