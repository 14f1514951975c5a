"""Download datasets into the cache and verify every file before use.

The SHA-256 of each file is checked on every `ensure`, which takes a fraction of a second even for
100 MB. A missing file is downloaded to `FILE.part`, which survives a lost connection or a killed
process: the next attempt resumes it, from any mirror. It gets its final name only once its checksum
is right.

`pooch.retrieve` is not used: it deletes its temporary file after a failure, so a download could not
be resumed.
"""

import hashlib
import logging
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Literal
from urllib.error import URLError
from urllib.request import Request, urlopen

import pooch
from filelock import FileLock
from tqdm import tqdm

from seqbench import __version__
from seqbench.datasets.catalog import Archive, File, find
from seqbench.datasets.wav_archive import members_digest
from seqbench.errors import ConfigError, DataError, RunError
from seqbench.user_files import expand_home

log = logging.getLogger(__name__)

# Socket timeout in seconds.
TIMEOUT = 30.0
# Interruptions tolerated per mirror, as long as each attempt receives more bytes.
CUTS = 5
# Most bytes of a file whose size is not known.
MOST_BYTES = 2**28

State = Literal["ok", "missing", "bad"]


class MirrorError(Exception):
    """Raised if a mirror does not deliver the file; the next mirror is then tried."""


def data_folder(data_dir: str | None = None) -> Path:
    """Return the cache folder: `data_dir`, else SEQBENCH_DATA, else the platform's cache folder.

    Raises:
        ConfigError: if it is in a home folder that is unknown.
    """
    chosen = data_dir or os.environ.get("SEQBENCH_DATA")
    if chosen:
        return expand_home(chosen)
    with suppress(RuntimeError):  # some versions of platformdirs return a relative path instead
        folder = Path(pooch.os_cache("seqbench"))
        if folder.is_absolute():
            return folder
    raise ConfigError("no home folder for the data is known: set SEQBENCH_DATA or data_dir=")


def check(file: File, path: Path) -> State:
    """Return `missing`, `ok`, or `bad` if the file at `path` has the wrong SHA-256.

    Raises:
        DataError: if the file cannot be read.
    """
    try:
        if not path.is_file():
            return "missing"
        return "ok" if is_right(file, path) else "bad"
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def is_right(held: File | Archive, path: Path) -> bool:
    """Return True if a file has the SHA-256 of a dataset's file, or a zip its wav files."""
    if pooch.file_hash(path) == held.sha256:
        return True
    if isinstance(held, Archive) or held.members is None:
        return False
    try:
        return members_digest(path) == held.members
    except DataError:
        return False


def ensure(name: str, data_dir: str | None = None, offline: bool = False) -> dict[str, Path]:
    """Verify all files of a dataset, download those that are missing, and return their paths.

    If all files are right, nothing is written, so the folder may be read-only. A lock makes
    concurrent processes wait for the first one's download. A file with the wrong checksum is
    renamed to `FILE.bad-<first 8 hex digits of its checksum>` and downloaded again.

    Args:
        name: a key of `catalog.DATASETS`.
        data_dir: the cache folder, see `data_folder`.
        offline: do not use the network; SEQBENCH_OFFLINE=1 in the environment does the same.

    Returns:
        The path of each file, by file name.

    Raises:
        ConfigError: if no dataset has that name.
        DataError: if a file cannot be read or downloaded, or is bad and cannot be renamed.
        RunError: if the disk is full or the folder is not writable.
    """
    dataset = find(name)
    offline = offline or os.environ.get("SEQBENCH_OFFLINE", "0") not in ("", "0")
    folder = data_folder(data_dir) / dataset.folder
    paths = {file.name: folder / file.name for file in dataset.files}
    wanted = [file for file in dataset.files if check(file, paths[file.name]) != "ok"]
    with ExitStack() as stack:
        if wanted:
            # An unwritable folder needs no lock; the write below raises the error with its reason.
            with suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(folder / ".lock"))
        for file in wanted:
            path = paths[file.name]
            # Check again: another process may have downloaded it while this one waited.
            state = check(file, path)
            if state == "bad":
                set_aside(path)
            if state != "ok":
                if offline:
                    raise DataError(
                        f"{file.name} of {name} is missing and offline mode is on: "
                        f"{by_hand(file, path)}"
                    )
                fetch(file, path)
    return paths


def by_hand(file: File, path: Path) -> str:
    """Return the instruction for placing a file by hand, for an error message."""
    unpacked = f" as it is inside {file.archive.name}" if file.archive else ""
    return f"put it{unpacked} at {path}"


def set_aside(path: Path) -> None:
    """Rename a file with the wrong checksum and log a warning.

    Raises:
        DataError: if it cannot be renamed.
    """
    aside = path.with_name(f"{path.name}.bad-{pooch.file_hash(path)[:8]}")
    try:
        path.replace(aside)
    except OSError as error:
        raise DataError(
            f"{path} has the wrong SHA-256 and cannot be moved aside ({error.strerror}): replace "
            "it, or set SEQBENCH_DATA to a folder that you can write"
        ) from error
    log.warning("%s has the wrong SHA-256: moved aside to %s", path, aside.name)


def fetch(file: File, path: Path) -> None:
    """Download a file to `path` from the first mirror that delivers it, and unpack it if zipped.

    Raises:
        DataError: if no mirror delivers it, or it cannot be unpacked.
        RunError: if it cannot be written.
    """
    held = file.archive or file
    part = path.with_name(f"{held.name}.part")
    failures = []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for url in file.urls:
            try:
                download(url, held, part)
                break
            except MirrorError as error:
                failures.append(f"{url}: {error}")
        else:
            raise DataError(
                f"cannot fetch {file.name}: {'; '.join(failures)}; "
                f"try again later, or {by_hand(file, path)}"
            )
        if file.archive:
            archive, part = part, path.with_name(f"{file.name}.part")
            data = unpack(file, archive)
            part.write_bytes(data)
            archive.unlink()
        part.replace(path)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from error


def download(url: str, held: File | Archive, part: Path) -> None:
    """Complete `part` from one mirror and verify its checksum.

    Raises:
        MirrorError: if the mirror fails or the checksum is wrong; in the latter case `part` is
            deleted.
    """
    resumed = complete(url, held, part)
    if is_right(held, part):
        return
    part.unlink()
    # The wrong bytes may be from an earlier attempt: download everything from this mirror once.
    if resumed:
        complete(url, held, part)
        if is_right(held, part):
            return
        part.unlink()
    raise MirrorError("its bytes have the wrong SHA-256")


def complete(url: str, held: File | Archive, part: Path) -> bool:
    """Request the rest of `part` from a mirror, again after interruptions, until its size is right.

    Returns:
        True if `part` may hold bytes of more than one response.

    Raises:
        MirrorError: if an attempt receives no bytes, or after more than `CUTS` interruptions.
    """
    cuts = 0
    if any_size(held):
        part.unlink(missing_ok=True)  # the rest of another mirror's archive would not fit
        receive(url, held, part)
        return False
    resumed = part.exists()
    while (before := length(part)) < held.size:
        try:
            receive(url, held, part)
        except MirrorError:
            cuts += 1
            if cuts > CUTS or length(part) <= before:
                raise
            resumed = True
    return resumed


def receive(url: str, held: File | Archive, part: Path) -> None:
    """Append the missing bytes to `part` from one response of a mirror.

    A mirror that ignores the range request sends the whole file, and `part` is overwritten.

    Raises:
        MirrorError: if the connection fails or the response has the wrong length.
    """
    have = length(part)
    # With transfer compression, byte ranges would refer to the compressed bytes.
    headers = {"User-Agent": f"seqbench/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with network():
        response = urlopen(Request(url, headers=headers), timeout=TIMEOUT)
    with response:
        if response.status != 206:
            have = 0
        size = held.size
        if any_size(held):
            size = min(response.length or MOST_BYTES, MOST_BYTES)
        elif response.length is not None and have + response.length != held.size:
            raise MirrorError(f"has {have + response.length} bytes instead of {held.size}")
        # `disable=None` hides the bar if stderr is not a terminal.
        with (
            part.open("ab" if have else "wb") as out,
            tqdm(
                desc=held.name,
                initial=have,
                total=size,
                unit="B",
                unit_scale=True,
                disable=None,
            ) as bar,
        ):
            # Stop at the known size: a response without Content-Length may be longer.
            while have < size:
                with network():
                    chunk = response.read1(min(2**16, size - have))
                if not chunk:
                    if any_size(held) and response.length is None:
                        break  # the end of a response without Content-Length
                    raise MirrorError(f"broke off after {have} of {size} bytes")
                out.write(chunk)
                have += len(chunk)
                bar.update(len(chunk))


def any_size(held: File | Archive) -> bool:
    """Return True if mirrors pack a file themselves, so that its size differs between them."""
    return isinstance(held, File) and held.members is not None


def length(part: Path) -> int:
    """Return the number of bytes received so far."""
    return part.stat().st_size if part.exists() else 0


@contextmanager
def network() -> Iterator[None]:
    """Convert network errors to `MirrorError`; `fetch` treats an `OSError` as a disk error."""
    try:
        yield
    except (OSError, HTTPException) as error:
        reason = error.reason if type(error) is URLError else error
        raise MirrorError(str(reason) or type(error).__name__) from error


def unpack(file: File, archive: Path) -> bytes:
    """Return the file's bytes from a zip archive, read by exact name and up to the known size.

    A malicious archive can therefore neither choose where its bytes go nor exhaust the memory.

    Raises:
        DataError: if the archive is damaged or the file in it has the wrong SHA-256.
    """
    try:
        with zipfile.ZipFile(archive) as members, members.open(file.name) as member:
            data = member.read(file.size + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, RuntimeError) as error:
        raise DataError(f"cannot unpack {file.name} from {archive}: {error}") from error
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise DataError(f"{archive} holds a {file.name} with the wrong SHA-256")
    return data
