"""Read labelled sequences from an npz file of numpy: `x`, `y` and, where they differ, `lengths`."""

import os
import tokenize
import zipfile
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from seqbench.datasets.labelled import Labelled, numbered_channels
from seqbench.datasets.wav_archive import ZIP_ERRORS
from seqbench.errors import DataError
from seqbench.user_files import existing
from seqbench.wording import plain

# What numpy raises, beyond those of zipfile, if a member is no array or too large.
ARRAY_ERRORS = ValueError, TypeError, SyntaxError, tokenize.TokenError, MemoryError


def read_npz(path: str, *, with_labels: bool = True) -> Labelled:
    """Read sequences from an npz file; see `read_labelled`.

    It holds `x`, `(sequences, time)` or `(sequences, time, channels)`; `y`, `(sequences,)` classes
    as integers or texts; `lengths`, `(sequences,)`, if sequences are padded on the right; and
    `channels`, their names. Only `x` is required. Arrays of objects are refused: reading them runs
    code that the file names.

    Raises:
        DataError: if the file cannot be read, or its arrays do not fit.
    """
    names = ["x", "lengths", "channels", *(["y"] if with_labels else [])]
    arrays = read_arrays(path, names)
    x = arrays.get("x")
    if x is None:
        raise DataError(f"{path} has no array x: numpy.savez(file, x=..., y=...) writes it")
    if x.dtype.kind not in "fiub":
        raise DataError(f"{path}: expected numbers in x, got {x.dtype}")
    if x.ndim not in (2, 3):
        raise DataError(
            f"{path}: expected x of shape (sequences, time) or (sequences, time, channels), got "
            f"{x.shape}"
        )
    if not x.size:
        raise DataError(f"{path}: x is empty, of shape {x.shape}")
    x = x.astype(np.float64, copy=False).reshape(*x.shape[:2], -1)
    count, time, width = x.shape
    lengths: NDArray[np.int64] = np.full(count, time, np.int64)
    if "lengths" in arrays:
        given = arrays["lengths"]
        if given.shape != (count,) or given.dtype.kind not in "iu":
            raise DataError(
                f"{path}: expected {count:,} integers in lengths, one of each sequence of x, got "
                f"{given.dtype} of shape {given.shape}"
            )
        lengths = given.astype(np.int64, copy=False)
        wrong = (lengths < 1) | (lengths > time)
        if wrong.any():
            row = int(wrong.argmax())
            raise DataError(
                f"{path}, sequence {row + 1}: lengths says {lengths[row]} steps, expected 1 to "
                f"{time}, the steps of x"
            )
    channels = numbered_channels(width)
    if "channels" in arrays:
        channels = tuple(map(str, arrays["channels"].ravel().tolist()))
        if len(set(channels)) != len(channels) or len(channels) != width:
            raise DataError(f"{path}: expected {width} different names in channels")
    labels = None if "y" not in arrays else labels_of(arrays["y"], count, path)
    if lengths.min() == time:
        values = x.reshape(-1, width)
    else:
        values = x[np.arange(time) < lengths[:, None]]
    return Labelled(path, channels, values, lengths, labels)


def read_arrays(path: str, names: Iterable[str]) -> dict[str, NDArray[np.generic]]:
    """Return those of the named arrays that an npz file holds.

    Raises:
        DataError: if one cannot be read, or holds objects.
    """
    file = existing(path)
    found: dict[str, NDArray[np.generic]] = {}
    name = ""
    try:
        if not zipfile.is_zipfile(file):
            empty = not file.stat().st_size
            raise DataError(f"{path} is {'empty' if empty else 'no npz file'}")
        with zipfile.ZipFile(file) as archive:
            members = {name: f"{name}.npy" for name in names}
            members = {k: v for k, v in members.items() if v in archive.namelist()}
            size = sum(archive.getinfo(member).file_size for member in members.values())
            if size > memory():
                raise DataError(
                    f"{path}: its arrays have {size / 2**30:,.1f} GiB, more than the "
                    f"{memory() / 2**30:,.1f} GiB of memory of this machine"
                )
            for name, member in members.items():
                with archive.open(member) as data:
                    found[name] = np.lib.format.read_array(data, allow_pickle=False)
    except (*ZIP_ERRORS, *ARRAY_ERRORS) as error:
        if "allow_pickle" in str(error):
            instead = "texts: numpy.array(list(y), str)"
            if name in ("x", "lengths"):
                instead = "numbers: pad x on the right to one length, and save lengths beside it"
            raise DataError(
                f"{path}: {name} is an array of objects, whose reading could run foreign code; "
                f"save an array of {instead}"
            ) from None
        place = f"{path}, array {name}" if name else path
        raise DataError(f"cannot read {place}: {plain(str(error)) or 'out of memory'}") from error
    return found


def memory() -> int:
    """Return the bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def labels_of(y: NDArray[np.generic], count: int, path: str) -> tuple[str, ...]:
    """Return the classes of an array as texts.

    Raises:
        DataError: if they are not one integer or text for each sequence.
    """
    if y.shape != (count,):
        raise DataError(
            f"{path}: expected {count:,} classes in y, one of each sequence of x, got an array of "
            f"shape {y.shape}"
        )
    if y.dtype.kind == "f" and np.isfinite(y).all() and (y == np.floor(y)).all():
        y = y.astype(np.int64)
    if y.dtype.kind == "S":
        return tuple(text.decode("utf-8", "replace") for text in y.tolist())
    if y.dtype.kind not in "iubU":
        raise DataError(f"{path}: expected integers or texts in y, got {y.dtype}")
    return tuple(map(str, y.tolist()))
