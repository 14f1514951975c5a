"""What every test shares: the real data, where it is at hand, and a process as it was before."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_configure() -> None:
    """Restore the signals that the parent process ignores.

    A script's background job (`make test &`) ignores SIGINT. Its children inherit that, and Python
    then raises no KeyboardInterrupt.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
    for number in numbers:
        if signal.getsignal(number) is signal.SIG_IGN:
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real datasets, byte-exact; the test is skipped where there is none."""
    folder = Path(os.environ.get("SEQBENCH_TEST_DATA", BESIDE))
    if not (folder / "mnist").is_dir():
        pytest.skip(f"no real datasets at {folder} (set SEQBENCH_TEST_DATA to their folder)")
    return folder


@pytest.fixture(autouse=True)
def safe_path() -> Iterator[None]:
    """Restore PYTHONSAFEPATH, which the command sets for its child processes."""
    before = os.environ.get("PYTHONSAFEPATH")
    yield
    os.environ.pop("PYTHONSAFEPATH", None)
    if before is not None:
        os.environ["PYTHONSAFEPATH"] = before


@pytest.fixture(autouse=True)
def denormal_numbers() -> Iterator[None]:
    """A run flushes denormal numbers to zero, process-wide; hypothesis refuses to work so."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)
