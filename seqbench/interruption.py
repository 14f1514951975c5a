"""How a person, a shell or a cluster stops a run: signals, turned into a question."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOP = (signal.SIGINT, signal.SIGTERM)
# What a cluster sends a while before the time that it granted is over.
WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)


@contextmanager
def signals() -> Iterator[Callable[[], int]]:
    """Turn SIGINT, SIGTERM and a cluster's warnings into a question that the trainer asks.

    The answer is the number of the last signal, 0 if none came. A second SIGINT stops at once,
    without a checkpoint. If the process ignores SIGINT, it keeps ignoring it: a shell starts the
    background jobs of a script so (`nohup seqbench train ... &`), since Ctrl-C is not for them.
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
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        handled.remove(signal.SIGINT)
    before = {number: signal.signal(number, note) for number in handled}
    try:
        yield lambda: received[-1] if received else 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
