"""Find and identify the files that a user names."""

import hashlib
import os
from functools import cache
from pathlib import Path

from seqbench.errors import ConfigError


def expand_home(path: str) -> Path:
    """Return a path with `~` or `~user` at its beginning replaced by that home folder.

    A name that begins with `~$`, as those of office programs' drafts, stays as it is.

    Raises:
        ConfigError: if the home folder is unknown.
    """
    if path.startswith("~$"):
        return Path(path)
    try:
        return Path(path).expanduser()
    except RuntimeError:
        name = path.partition("/")[0]
        raise ConfigError(
            f"no home folder {name} is known for {path}: give the path in full, or as ./{path}"
        ) from None


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file; an unchanged file is read once per process.

    Raises:
        OSError: if it cannot be read.
    """
    facts = path.stat()
    return _sha256(os.path.realpath(path), facts.st_size, facts.st_mtime_ns)


@cache
def _sha256(path: str, size: int, modified: int) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
