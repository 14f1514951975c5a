"""What every test shares: the real data, where it is at hand, and a process as it was before."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real datasets, byte-exact; the test is skipped where there is none."""
    folder = Path(os.environ.get("SEQBENCH_TEST_DATA", BESIDE))
    if not (folder / "mnist").is_dir():
        pytest.skip(f"no real datasets at {folder} (set SEQBENCH_TEST_DATA to their folder)")
    return folder


@pytest.fixture(autouse=True)
def denormal_numbers() -> Iterator[None]:
    """A run flushes denormal numbers to zero, process-wide; hypothesis refuses to work so."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)
