"""Prevent two processes from training the same run.

On one machine the system's file lock does that; it is released when its holder dies. Across
machines that share a folder a lease does: the holder renews it while it lives, and a lease that is
not renewed for `LEASE` seconds has expired.
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
# Most bytes of a lease.
LONGEST = 1000


@contextmanager
def held(folder: Path, what: str) -> Iterator[None]:
    """Hold a folder for this process.

    Args:
        folder: must exist and be writable.
        what: description of the folder for the error.

    Raises:
        Held: if another process holds it; the message says which.
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
        # Atomically: an empty lease names no machine, and would count as another machine's.
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
    """Renew a lease until `over` is set."""
    while not over.wait(RENEWAL):
        with suppress(OSError):  # a full disk must not end the lease before the training
            os.utime(lease)


def holder(lease: Path) -> str:
    """Return the holder of a lease in words: `process <pid> on <host>`, if that is known."""
    try:
        return foreign.read(lease, LONGEST).decode() or "another process"
    except (OSError, UnicodeDecodeError):
        return "another process"


def is_held(folder: Path) -> bool:
    """Return True if a living process seems to hold a folder, without trying to lock it.

    For callers that can wait: only `held` is certain.
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
        pass  # the process lives, and belongs to another user
    return True


def is_elsewhere(lease: Path) -> bool:
    """Return True if a lease was taken on another machine; on this one the file lock decides."""
    return lease.exists() and not holder(lease).endswith(f" on {socket.gethostname()}")


def age(lease: Path, lock: Path) -> float:
    """Return the seconds since a lease was renewed, by the file server's clock.

    Return `LEASE` if there is no lease any more.
    """
    try:
        lock.touch()
        return lock.stat().st_mtime - lease.stat().st_mtime
    except FileNotFoundError:
        return LEASE
