"""Load MNIST, handwritten digits in LeCun's idx format."""

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seqbench.datasets.catalog import find
from seqbench.datasets.download import ensure
from seqbench.errors import DataError

UNSIGNED_BYTE = 0x08


@dataclass(frozen=True, eq=False)
class Mnist:
    """The images and labels of MNIST.

    Attributes:
        train_images: `(60000, 28, 28)`, 0 (background) to 255.
        train_labels: `(60000,)`, 0 to 9.
        test_images: `(10000, 28, 28)`.
        test_labels: `(10000,)`.
        checksums: SHA-256 of each file.
    """

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.uint8]
    checksums: dict[str, str]


def load_mnist(data_dir: str | None = None) -> Mnist:
    """Read MNIST; download it on first use.

    Raises:
        DataError: if it cannot be downloaded or a file is malformed.
        RunError: if the cache is not writable.
    """
    paths = ensure("mnist", data_dir)
    return Mnist(
        train_images=read_idx(paths["train-images-idx3-ubyte.gz"], (60_000, 28, 28)),
        train_labels=read_idx(paths["train-labels-idx1-ubyte.gz"], (60_000,)),
        test_images=read_idx(paths["t10k-images-idx3-ubyte.gz"], (10_000, 28, 28)),
        test_labels=read_idx(paths["t10k-labels-idx1-ubyte.gz"], (10_000,)),
        checksums=find("mnist").checksums,
    )


def read_idx(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Read a gzipped idx file of unsigned bytes of known shape.

    The format is two zero bytes, the element type, the number of dimensions, each dimension as a
    big-endian 32-bit integer, and the elements.

    Raises:
        DataError: if the file cannot be unpacked or differs from the format in header or size.
    """
    header = struct.pack(f">4B{len(shape)}I", 0, 0, UNSIGNED_BYTE, len(shape), *shape)
    size = len(header) + math.prod(shape)
    try:
        with gzip.open(path) as file:
            # One byte more than expected detects a file that is too long without reading it all.
            data = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot unpack {path}: {error}") from error
    if not data.startswith(header):
        begins = data[: len(header)].hex() or "nothing"
        raise DataError(
            f"{path} is not an idx file of unsigned bytes of shape {shape}: "
            f"it begins with {begins} instead of {header.hex()}"
        )
    if len(data) != size:
        held = len(data) if len(data) < size else f"more than {size}"
        raise DataError(f"{path} unpacks to {held} bytes instead of {size}")
    # Copy: torch warns about read-only memory.
    return np.frombuffer(data, np.uint8, offset=len(header)).reshape(shape).copy()
