"""Provide the real datasets, and restore settings of the process after each test."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"
# Tensors of tests are small: more threads only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The same examples on every machine, however slow it is.
hypothesis.settings.register_profile(
    "seqbench",
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("seqbench")


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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the tests of clusters, which mostly wait while other workers compute."""
    items.sort(key=lambda item: not any(map(item.get_closest_marker, ("ray", "slurm"))))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real datasets; skip the test if it is missing."""
    folder = Path(os.environ.get("SEQBENCH_TEST_DATA", BESIDE))
    if not (folder / "mnist").is_dir():
        pytest.skip(f"no real datasets at {folder} (set SEQBENCH_TEST_DATA to their folder)")
    return folder


@pytest.fixture(autouse=True, scope="session")
def no_memory_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what tests type out of the file that remembers the custom code of this user."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


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
    """Restore denormal numbers, which a run flushes to zero; hypothesis refuses to work so."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)
