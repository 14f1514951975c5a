"""Two processes must not train the same run.

On one machine the system's file lock sees to that, and dies with its holder. Across machines that
share a folder, a lease does: the holder renews it while it lives, and one that has not been renewed
for a while has lapsed.
"""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from seqbench.errors import Held
from seqbench.runs import atomic, foreign

# Seconds without renewal after which another machine may take over, and between renewals.
LEASE, RENEWAL = 120.0, 20.0
# Bytes of a lease.
LONGEST = 1000


@contextmanager
def held(folder: Path, what: str) -> Iterator[None]:
    """Hold a folder for this process.

    Args:
        folder: exists, and can be written.
        what: is held, for the error.

    Raises:
        Held: another process holds it; says which.
    """
    lock, lease = FileLock(folder / ".lock"), folder / ".lease"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise Held(f"{what} is being trained by {holder(lease)}") from None
    try:
        if is_elsewhere(lease) and age(lease, folder / ".lock") < LEASE:
            raise Held(
                f"{what} is being trained by {holder(lease)}; if that is gone, it is free in "
                f"{LEASE:.0f} seconds"
            )
        # Whole or not at all: an empty lease would be nobody's, and so another machine's.
        atomic.write(lease, f"process {os.getpid()} on {socket.gethostname()}".encode())
        over = threading.Event()
        renewal = threading.Thread(target=renew, args=(lease, over), daemon=True)
        renewal.start()
        try:
            yield
        finally:
            over.set()
            renewal.join()
            with suppress(OSError):
                lease.unlink()
    finally:
        lock.release()


def renew(lease: Path, over: threading.Event) -> None:
    """Renew a lease until it is over."""
    while not over.wait(RENEWAL):
        with suppress(OSError):  # a full disk ends the training, not its lease
            os.utime(lease)


def holder(lease: Path) -> str:
    """Who holds a lease, in words."""
    try:
        return foreign.read(lease, LONGEST).decode() or "another process"
    except (OSError, UnicodeDecodeError):
        return "another process"


def is_held(folder: Path) -> bool:
    """Whether a living process seems to hold a folder, asked without getting in its way.

    For who can wait: only `held` knows for certain.
    """
    lease = folder / ".lease"
    if not lease.exists() or age(lease, folder / ".lock") >= LEASE:
        return False
    if is_elsewhere(lease):
        return True
    words = holder(lease).split()
    try:
        os.kill(int(words[1]), 0)
    except (ProcessLookupError, ValueError, IndexError, OverflowError):
        return False
    except PermissionError:
        pass  # it lives, and is somebody else's
    return True


def is_elsewhere(lease: Path) -> bool:
    """Whether a lease was taken on another machine: on this one, the file lock is the truth."""
    return lease.exists() and not holder(lease).endswith(f" on {socket.gethostname()}")


def age(lease: Path, lock: Path) -> float:
    """Seconds since a lease was renewed, by the clock of the machine that keeps the files."""
    try:
        lock.touch()
        return lock.stat().st_mtime - lease.stat().st_mtime
    except FileNotFoundError:
        return LEASE
