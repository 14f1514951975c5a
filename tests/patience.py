"""Wait for other processes as long as a slow, busy machine needs."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
# Seconds. It is no part of what a test asserts: only a test that fails waits so long.
PATIENCE = 600.0


def until(condition: Callable[[], T]) -> T:
    """Return the first true value of a condition."""
    end = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.1)
    return value
