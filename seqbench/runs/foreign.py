"""Read a file that may come from an untrusted source."""

import errno
from pathlib import Path


def read(path: Path, most: int) -> bytes:
    """Return the content of a regular file: a pipe could block, and a device may have no end.

    Args:
        path: the file; links are followed.
        most: largest size in bytes that is read.

    Raises:
        OSError: if the file cannot be read, is not a regular file, or is too large.
    """
    size = path.stat().st_size
    if not path.is_file():
        raise OSError(errno.EINVAL, "not a file", str(path))
    if size > most:
        raise OSError(errno.EFBIG, f"larger than {most:,} bytes", str(path))
    return path.read_bytes()
