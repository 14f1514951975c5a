"""Prevent two processes from training the same run.

On one machine the system's file lock does that; it is released when its holder dies. Across
machines that share a folder, and on file systems without file locks, a lease does: the holder
renews it while it lives, and a lease that is not renewed for `LEASE` seconds has expired.
"""

import errno
import fcntl
import os
import pwd
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from seqbench.errors import RunLocked
from seqbench.runs import foreign

# Seconds without renewal after which another machine may take over, and between renewals.
LEASE, RENEWAL = 120.0, 20.0
# Most bytes of a lease, and its content.
LONGEST = 1000
HOLDER = re.compile(r"process (?P<pid>\d+) on (?P<host>.+)")
# Errors of a file system without file locks.
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
# The folders that this process holds: the open lock file, and what the process wrote to the lease.
HELD: dict[Path, tuple[BinaryIO, bytes]] = {}


@contextmanager
def held(folder: Path, what: str) -> Iterator[None]:
    """Hold a folder for this process.

    Args:
        folder: must exist and be writable.
        what: description of the folder for the error.

    Raises:
        RunLocked: if another process holds it; the message says which.
    """
    lock, lease = folder / ".lock", folder / ".lease"
    with ExitStack() as stack:
        try:
            opened = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            file = stack.enter_context(os.fdopen(opened, "rb"))
            locked = acquire(file)
        except (BlockingIOError, PermissionError) as error:
            # Another user's file may not be writable, whether that user's process lives or not.
            if isinstance(error, PermissionError) and not is_held(folder):
                raise
            raise RunLocked(f"{what} is being trained by {holder(lease)}") from None
        taken = is_elsewhere(lease) and age(lease, lock) < LEASE if locked else is_held(folder)
        if taken:
            raise RunLocked(
                f"{what} is being trained by {holder(lease)}; if that is gone, it is free in "
                f"{LEASE:.0f} seconds"
            )
        content = f"process {os.getpid()} on {socket.gethostname()}".encode()
        draft = folder / f".lease.{os.getpid()}"
        try:
            # Atomically: an empty lease names no machine, and would count as another machine's.
            draft.write_bytes(content)
            draft.replace(lease)
        finally:
            draft.unlink(missing_ok=True)
        HELD[folder] = file, content
        over = threading.Event()
        renewal = threading.Thread(target=renew, args=(folder, over), daemon=True)
        renewal.start()
        try:
            yield
        finally:
            over.set()
            renewal.join()
            with suppress(OSError):
                if has_lease(folder):
                    lease.unlink()
            HELD.pop(folder, None)


def acquire(file: BinaryIO) -> bool:
    """Lock a file; return False if its file system has no locks.

    Raises:
        BlockingIOError: if another process has locked it, or deletes it.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in NO_LOCKS:
            return False
        raise
    if os.fstat(file.fileno()).st_nlink == 0:
        raise BlockingIOError
    return True


def leave_to_parent() -> None:
    """Close the lock files in a forked process: the locks are its parent's, and end with it."""
    for file, _ in HELD.values():
        file.close()
    HELD.clear()


os.register_at_fork(after_in_child=leave_to_parent)


def renew(folder: Path, over: threading.Event) -> None:
    """Renew the lease of a held folder until `over` is set or another process takes over."""
    while not over.wait(RENEWAL):
        with suppress(OSError):  # a full disk must not end the lease before the training
            if not has_lease(folder):
                return
            os.utime(folder / ".lease")


def has_lease(folder: Path) -> bool:
    """Return True if this process holds a folder and the lease is still its own.

    Raises:
        OSError: if the lease cannot be read, or the folder is gone.
    """
    if folder not in HELD:
        return False
    try:
        return foreign.read(folder / ".lease", LONGEST) == HELD[folder][1]
    except FileNotFoundError:
        folder.stat()
        return False


def check(path: Path) -> None:
    """Raise `RunLocked` if another process has taken over a folder that this process held.

    That can happen to a process that was suspended for `LEASE` seconds.

    Args:
        path: a file in the folder; nothing is raised if this process holds no folder above it.
    """
    for folder in path.parents:
        if folder in HELD and not has_lease(folder):
            raise RunLocked(f"stopped: {folder} was taken over by {holder(folder / '.lease')}")


def read_lease(lease: Path) -> re.Match[str] | None:
    """Return `pid` and `host` of a lease; `None` if it cannot be read or names none."""
    with suppress(OSError):
        return HOLDER.fullmatch(foreign.read(lease, LONGEST).decode(errors="replace"))
    return None


def holder(lease: Path) -> str:
    """Return the holder of a lease in words.

    `process <pid> on <host>`, or `<user>@<host> (process <pid>)` for another user; `another
    process` if it is unknown.
    """
    found = read_lease(lease)
    if found is None:
        return "another process"
    with suppress(OSError):  # the lease is gone
        if (uid := lease.stat().st_uid) != os.geteuid():
            user: str | int = uid
            with suppress(KeyError):
                user = pwd.getpwuid(uid).pw_name
            return f"{user}@{found['host']} (process {found['pid']})"
    return found[0]


def is_held(folder: Path) -> bool:
    """Return True if a living process seems to hold a folder, without trying to lock it.

    For callers that can wait: only `held` is certain. The folder may be read-only.
    """
    lease = folder / ".lease"
    try:
        if age(lease, folder / ".lock") >= LEASE:
            return False
    except OSError:
        return False  # the folder cannot be read
    found = read_lease(lease)
    if found is None or found["host"] != socket.gethostname():
        return True
    try:
        os.kill(int(found["pid"]), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # the process lives, and belongs to another user
    return True


def is_elsewhere(lease: Path) -> bool:
    """Return True if a lease was taken on another machine; on this one the file lock decides."""
    found = read_lease(lease)
    return lease.exists() and (found is None or found["host"] != socket.gethostname())


def age(lease: Path, lock: Path) -> float:
    """Return the seconds since a lease was renewed; `LEASE` if there is no lease any more.

    By the file server's clock, or by that of this machine if the folder is read-only.
    """
    try:
        renewed = lease.stat().st_mtime
        lock.touch()
        return lock.stat().st_mtime - renewed
    except FileNotFoundError:
        return LEASE
    except OSError:
        return time.time() - lease.stat().st_mtime
