import gzip
import random
import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbench.datasets.mnist import load_mnist, read_idx
from seqbench.errors import DataError


def gz(data, level=9):
    """Compress without a time stamp, so that all test workers make the same bytes."""
    return gzip.compress(data, level, mtime=0)


SHAPE = (6, 4, 3)
IMAGES = np.array(random.Random(0).choices(range(256), k=72), np.uint8).reshape(SHAPE)


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    return struct.pack(f">4B{array.ndim}I", 0, 0, kind, array.ndim, *array.shape) + array.tobytes()


def test_mnist_is_what_the_field_knows(real_data):
    mnist = load_mnist(str(real_data))
    assert mnist.train_images.shape == (60_000, 28, 28)
    assert mnist.test_images.shape == (10_000, 28, 28)
    assert mnist.test_labels.shape == (10_000,)
    assert mnist.train_images.dtype == mnist.train_labels.dtype == np.uint8
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(mnist.train_labels).tolist() == counts
    assert mnist.train_images.mean() / 255 == pytest.approx(0.1307, abs=5e-5)
    assert mnist.train_images.std() / 255 == pytest.approx(0.3081, abs=5e-5)
    assert mnist.train_images.flags.writeable
    assert len(mnist.checksums) == 4
    assert all(name.startswith("mnist/") for name in mnist.checksums)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (gz(idx(IMAGES, kind=9)), "begins with 00000903"),
        (gz(idx(IMAGES.reshape(4, 6, 3))), "not an idx file"),
        (gz(idx(IMAGES.reshape(72))), "not an idx file"),
        (gz(idx(IMAGES) + b"x"), "more than 88 bytes instead of 88"),
        (gz(idx(IMAGES)[:-1]), "to 87 bytes instead of 88"),
        (gz(idx(IMAGES) + bytes(10**8), 1), "more than 88"),
        (gz(b""), "begins with nothing"),
        (gz(idx(IMAGES))[:-9], "cannot unpack"),
        (gz(idx(IMAGES)) + b"trailing", "cannot unpack"),
        (idx(IMAGES), "cannot unpack"),
        (b"", "begins with nothing"),
    ],
    ids=str,
)
def test_what_is_not_idx_to_the_byte_is_refused(content, text, tmp_path):
    path = tmp_path / "images.gz"
    with pytest.raises(DataError, match="cannot unpack"):
        read_idx(path, SHAPE)
    path.write_bytes(gz(idx(IMAGES)))
    assert np.array_equal(read_idx(path, SHAPE), IMAGES)
    path.write_bytes(content)
    with pytest.raises(DataError, match=text):
        read_idx(path, SHAPE)


GOOD = gz(idx(IMAGES))


@given(
    changes=st.dictionaries(st.integers(0, len(GOOD) - 1), st.integers(0, 255), max_size=8),
    keep=st.integers(0, len(GOOD)),
    more=st.binary(max_size=8),
)
@settings(max_examples=150)
def test_mutated_bytes_give_the_images_or_a_data_error(tmp_path_factory, changes, keep, more):
    content = bytearray(GOOD)
    for at, byte in changes.items():
        content[at] = byte
    path = tmp_path_factory.getbasetemp() / "mutated.gz"
    path.write_bytes(bytes(content[:keep]) + more)
    # Bytes of the gzip header that say nothing of the content, such as its date, may change.
    with suppress(DataError):
        assert np.array_equal(read_idx(path, SHAPE), IMAGES)
