"""Read a user's text file: a byte order mark is dropped, and line ends become newlines."""

import codecs

from seqbench.errors import DataError
from seqbench.user_files import existing


def read_bytes(path: str) -> bytes:
    """Return the content of a user's file.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        return existing(path).read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def decoded(data: bytes, name: str) -> str:
    """Return a user's text of UTF-8 bytes, as `plain_text` does.

    Args:
        data: the content of a file.
        name: of the file, for messages.

    Raises:
        DataError: if it is empty or not UTF-8 text.
    """
    if not data:
        raise DataError(f"{name} is empty")
    body = data.removeprefix(codecs.BOM_UTF8)
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        at = error.start + len(data) - len(body)
        raise DataError(
            f"{name} is not UTF-8 text: byte 0x{data[at]:02x} at offset {at} ({error.reason})"
        ) from error
    # A NUL byte is valid UTF-8, but marks a binary file.
    if 0 in data:
        raise DataError(f"{name} is not text: byte 0x00 at offset {data.index(0)}")
    return plain_text(text)


def plain_text(text: str) -> str:
    r"""Return a user's text without a byte order mark, and with `\n` as line ends."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
