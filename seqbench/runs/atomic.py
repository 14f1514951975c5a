"""Writing a file so that a reader finds the old one or the new one, whole, even after a crash."""

import os
from pathlib import Path


def write(path: Path, content: bytes) -> None:
    """Replace a file by `content`; when this returns, it is on disk.

    A file has one writer at a time: so the draft of one that was killed is overwritten by the next,
    and drafts never pile up.
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
    # The new name is on disk only when its folder is.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
