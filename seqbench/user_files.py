"""Find and identify the files that a user names."""

import hashlib
import os
import stat
from contextlib import suppress
from functools import cache
from pathlib import Path

from seqbench.errors import ConfigError, DataError

# Endings of files of labelled sequences, which have no columns.
SEQUENCE_FILES = (".npz", ".ts")


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


def existing(path: str, hint: str = "") -> Path:
    """Return a file that the user names.

    Args:
        path: as for `expand_home`.
        hint: ends the error.

    Raises:
        ConfigError: as for `expand_home`.
        DataError: if there is no such file.
    """
    file = expand_home(path)
    if not file.is_file():
        raise DataError(f"{path} is {'not a file' if file.exists() else 'not there'}{hint}")
    return file


def make_folders(path: Path) -> None:
    """Create a folder and its missing parents, see `share`.

    Raises:
        OSError: if a folder cannot be created.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        with suppress(FileExistsError):  # another process created it meanwhile
            folder.mkdir()
            share(folder)


def share(path: Path) -> None:
    """Let the group write to a new file or folder if its parent is shared.

    A folder is shared if its group may write to it and its setgid bit is set, which hands its group
    on to new folders. The umask would keep the group from writing to these.
    """
    shared = stat.S_ISGID | stat.S_IWGRP
    if path.parent.stat().st_mode & shared == shared and not path.is_symlink():
        with suppress(PermissionError):  # it belongs to another user
            path.chmod(stat.S_IMODE(path.stat().st_mode) | stat.S_IWGRP)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file; an unchanged file is read once per process.

    Raises:
        OSError: if it cannot be read.
    """
    facts = path.stat()
    return _sha256(os.path.realpath(path), facts.st_size, facts.st_mtime_ns)


def check_digest(path: str, sha256: str | None, key: str = "task.path") -> str:
    """Return the SHA-256 of a task's file.

    Args:
        path: the file.
        sha256: its expected SHA-256; `None`: any.
        key: the setting that names the file, for errors.

    Raises:
        ConfigError: if its SHA-256 differs.
        DataError: if it is not there or cannot be read.
    """
    file = existing(path, f": if the file has moved, add {key}=NEW")
    try:
        found = sha256_of(file)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    if sha256 not in (None, found):
        raise ConfigError(
            f"{path} differs from the file of the run: expected SHA-256 {sha256[:12]}, got "
            f"{found[:12]}; {key}= names the unchanged file"
        )
    return found


@cache
def _sha256(path: str, size: int, modified: int) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
