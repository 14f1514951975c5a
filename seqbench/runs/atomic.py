"""Writing a file so that a reader finds the old one or the new one, whole, even after a crash."""

import os
from pathlib import Path


def write(path: Path, content: bytes) -> None:
    """Replace a file by `content`; when this returns, it is on disk."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    # The new name is on disk only when its folder is.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
