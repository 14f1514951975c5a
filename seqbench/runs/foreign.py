"""Reading a file that somebody else may have written."""

import errno
from pathlib import Path


def read(path: Path, most: int) -> bytes:
    """All of a file. A pipe would have us wait, a device has no end, and memory has one.

    Args:
        path: of the file; links are followed.
        most: bytes; what is larger is not read.

    Raises:
        OSError: it cannot be read, is no file, or too large.
    """
    size = path.stat().st_size
    if not path.is_file():
        raise OSError(errno.EINVAL, "not a file", str(path))
    if size > most:
        raise OSError(errno.EFBIG, f"larger than {most:,} bytes", str(path))
    return path.read_bytes()
