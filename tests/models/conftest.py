"""Build models for their tests."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from seqbench.config.choices import read_choice
from seqbench.config.compose import build


@pytest.fixture(scope="session")
def make() -> Callable[..., torch.nn.Module]:
    """Build a model by name, e.g. `make("tcn", spec, kernel_size=7)`; its YAML gives the rest."""

    def made(name: str, spec: Any, **values: Any) -> torch.nn.Module:
        return build("model", {"model": read_choice("model", name) | values}, spec)

    return made
