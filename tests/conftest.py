"""What every test shares: the real data, where it is at hand."""

import os
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
