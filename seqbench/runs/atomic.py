"""Write a file atomically: a reader finds the old or the new content, even after a crash."""

import os
from pathlib import Path


def write(path: Path, content: bytes) -> None:
    """Replace a file by `content`, which is on disk when this returns.

    A file must have one writer at a time. Its draft has a fixed name: the draft of a killed writer
    is overwritten by the next one.
    """
    draft = path.with_name(f".{path.name}.draft")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    # The rename is on disk only after the folder is synced.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
