"""Handle the signals by which a user, a shell or a cluster's scheduler stops a run."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# A cluster's scheduler sends these some time before a job's time limit.
WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)


@contextmanager
def signals() -> Iterator[Callable[[], int]]:
    """Catch SIGINT, SIGTERM, SIGHUP and a scheduler's warnings; yield a function to poll.

    The function returns the number of the last signal, or 0 if none came. A second SIGINT raises
    KeyboardInterrupt: the run stops at once, without a checkpoint. A process that ignores SIGINT
    or SIGHUP keeps ignoring it: shells start background jobs of a script without SIGINT, because
    Ctrl-C is not meant for them, and nohup lets a run outlive its terminal.
    """
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and signal.SIGINT in received:
            raise KeyboardInterrupt
        received.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0  # only the main thread may handle signals
        return
    handled = [*STOP, *WARNINGS]
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            handled.remove(number)
    before = {number: signal.signal(number, note) for number in handled}
    try:
        yield lambda: received[-1] if received else 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
