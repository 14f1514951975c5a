"""Write a file so that a crash does no harm: replace it as a whole, or append a line to it."""

import json
import os
from pathlib import Path
from typing import Any

from seqbench.runs import lock


def write(path: Path, content: bytes) -> None:
    """Replace a file by `content`, which is on disk when this returns.

    A reader finds the old or the new content, even after a crash.

    A file must have one writer at a time. Its draft has a fixed name: the draft of a killed writer
    is overwritten by the next one.

    Raises:
        OSError: if the file cannot be written.
        RunLocked: if another process has taken over the run of the file.
    """
    lock.check(path)  # the draft is the new holder's, too
    draft = path.with_name(f".{path.name}.draft")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        lock.check(path)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    # The rename is on disk only after the folder is synced.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def append_line(path: Path, value: dict[str, Any]) -> None:
    """Append a JSON object to a file as a line.

    Raises:
        OSError: if the file cannot be written, or is a link.
    """
    # A link in a folder from elsewhere could make seqbench write to another file.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
    with os.fdopen(descriptor, "ab+") as file:
        # End a line that a full disk cut off, so that it does not spoil the next one.
        file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
        torn = file.read(1) not in (b"", b"\n")
        file.write(b"\n" * torn + json.dumps(value, allow_nan=False).encode() + b"\n")
