"""Read the wav files in a zip archive, without unpacking it to the disk."""

import hashlib
import io
import lzma
import wave
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from seqbench.errors import DataError
from seqbench.wording import plain

# Most bytes of a wav file: ten times the longest recording.
LARGEST = 2**20
MOST_FILES = 100_000
# What zipfile raises if an archive is damaged, encrypted or compressed by an unknown method.
ZIP_ERRORS = OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError


def wav_files(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name, without its folders, and the bytes of each wav file, sorted by name.

    Raises:
        DataError: if the archive cannot be read, a name leads out of it, or a file is too large.
    """
    try:
        with zipfile.ZipFile(archive) as members:
            infos = members.infolist()
            if len(infos) > MOST_FILES:
                raise DataError(f"{archive} holds {len(infos):,} files, too many")
            found = {}
            for info in infos:
                path = PurePosixPath(info.filename.replace("\\", "/"))
                if path.is_absolute() or ".." in path.parts:
                    raise DataError(
                        f"{archive} holds '{plain(info.filename)}', which leads out of the archive"
                    )
                if path.suffix == ".wav":
                    found[path.name] = info
            for name, info in sorted(found.items(), key=lambda item: item[0].encode()):
                with members.open(info) as member:
                    data = member.read(LARGEST + 1)
                if len(data) > LARGEST:
                    raise DataError(f"{archive}: {plain(name)} is larger than {LARGEST:,} bytes")
                yield name, data
    except ZIP_ERRORS as error:
        raise DataError(f"cannot read {archive}: {plain(str(error))}") from error


def members_digest(archive: Path) -> str:
    """Return the SHA-256 of the lines `NAME SHA256` of the wav files, sorted by name.

    Raises:
        DataError: as for `wav_files`.
    """
    digest = hashlib.sha256()
    for name, data in wav_files(archive):
        digest.update(f"{name} {hashlib.sha256(data).hexdigest()}\n".encode())
    return digest.hexdigest()


def samples(data: bytes, rate: int, name: str) -> NDArray[np.int16]:
    """Return the samples of a wav file, mono and of 16 bits.

    Args:
        data: the file.
        rate: expected samples per second.
        name: the file in errors.

    Raises:
        DataError: if it is no such file, or ends early.
    """
    try:
        with wave.open(io.BytesIO(data)) as file:
            kind = file.getnchannels(), file.getsampwidth(), file.getframerate()
            count = file.getnframes()
            frames = file.readframes(count)
    except (wave.Error, EOFError) as error:
        raise DataError(f"{name} is no wav file: {plain(str(error)) or 'it ends early'}") from error
    if kind != (1, 2, rate):
        raise DataError(
            f"{name}: expected one channel of 16 bits at {rate} Hz, got {kind[0]} of "
            f"{8 * kind[1]} bits at {kind[2]} Hz"
        )
    if len(frames) != 2 * count or not count:
        raise DataError(f"{name}: expected {count:,} samples, got {len(frames) // 2:,}")
    return np.frombuffer(frames, "<i2").astype(np.int16)


def decimated(signal: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    """Return every `factor`-th sample of a signal, low-pass filtered before.

    The filter is a sinc with a Kaiser window, of linear phase: it keeps frequencies up to 0.8 of
    the new Nyquist frequency within 0.2 %, and damps those from 1.2 of it by 59 dB, which would
    alias to frequencies below 0.8.
    """
    if factor == 1:
        return signal
    # beta = 5.65 is for 60 dB by Kaiser's formula, which also gives the reach.
    reach = 10 * factor
    places = np.arange(-reach, reach + 1)
    taps = np.sinc(places / factor) * np.kaiser(len(places), 5.65)
    taps /= taps.sum()
    padded = np.pad(signal, reach)
    return np.convolve(padded, taps, "valid")[::factor]
