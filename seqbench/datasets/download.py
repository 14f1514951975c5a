"""Bringing a dataset into the cache, and never using a file that is not what it should be.

Each file is checked by its SHA-256 whenever it is asked for, which takes a fraction of a second
even for 100 MB. What is missing is received into `FILE.part`, which outlives a cut connection and a
killed process: whoever comes next, from whichever mirror, goes on where it ends. Only bytes with
the right checksum are given their name.

Why not `pooch.retrieve`: it hands its downloader a temporary file that it deletes after a failure,
so nothing would be left to go on with.
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
from seqbench.errors import DataError, RunError

log = logging.getLogger(__name__)

# Seconds that a mirror may be silent.
TIMEOUT = 30.0
# How often one mirror may cut a download short, if it got further each time.
CUTS = 5

State = Literal["ok", "missing", "bad"]


class MirrorError(Exception):
    """A mirror did not give the file; the next one may."""


def data_folder(data_dir: str | None = None) -> Path:
    """The cache: `data_dir`, else SEQBENCH_DATA, else the user's cache folder on this platform."""
    chosen = data_dir or os.environ.get("SEQBENCH_DATA")
    return Path(chosen).expanduser() if chosen else Path(pooch.os_cache("seqbench"))


def check(file: File, path: Path) -> State:
    """Whether the file at `path` is there and has the right bytes.

    Raises:
        DataError: it is there, but cannot be read.
    """
    try:
        if not path.is_file():
            return "missing"
        return "ok" if pooch.file_hash(path) == file.sha256 else "bad"
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def ensure(name: str, data_dir: str | None = None, offline: bool = False) -> dict[str, Path]:
    """Paths of all files of a dataset, each verified now; what is missing is downloaded first.

    Nothing is written where all is well, so the folder may be read-only. Processes that want the
    same dataset at once wait for the first of them. A file with the wrong checksum is moved aside
    to `FILE.bad-<8 hex digits of its checksum>`.

    Args:
        name: a key of `catalog.DATASETS`.
        data_dir: the cache folder, see `data_folder`.
        offline: do not use the network; so does SEQBENCH_OFFLINE=1 in the environment.

    Raises:
        ConfigError: no dataset has that name.
        DataError: a file cannot be had, or is bad and cannot be moved.
        RunError: the disk is full, or the folder cannot be written.
    """
    dataset = find(name)
    offline = offline or os.environ.get("SEQBENCH_OFFLINE", "0") not in ("", "0")
    folder = data_folder(data_dir) / dataset.folder
    paths = {file.name: folder / file.name for file in dataset.files}
    wanted = [file for file in dataset.files if check(file, paths[file.name]) != "ok"]
    with ExitStack() as stack:
        if wanted:
            # A folder that cannot be written needs no lock; what is then tried in it says why.
            with suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(folder / ".lock"))
        for file in wanted:
            path = paths[file.name]
            # Once more, since another process may have brought it while this one waited.
            state = check(file, path)
            if state == "bad":
                set_aside(path)
            if state != "ok":
                if offline:
                    raise DataError(
                        f"{file.name} of {name} is missing and nothing is fetched offline: "
                        f"{by_hand(file, path)}"
                    )
                fetch(file, path)
    return paths


def by_hand(file: File, path: Path) -> str:
    """How a person can do what a download would."""
    unpacked = f" as it is inside {file.archive.name}" if file.archive else ""
    return f"put it{unpacked} at {path}"


def set_aside(path: Path) -> None:
    """Rename a file with the wrong checksum, and say so.

    Raises:
        DataError: it cannot be renamed.
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
    """Bring a file to `path` from the first mirror that has it.

    Raises:
        DataError: no mirror gave it.
        RunError: it cannot be written.
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
    """Complete `part` from one mirror and hold it to its checksum.

    Raises:
        MirrorError: the mirror failed, or its bytes are wrong.
    """
    resumed = complete(url, held, part)
    if pooch.file_hash(part) == held.sha256:
        return
    part.unlink()
    # The wrong bytes may be those that were there before, so the mirror is given a fair trial.
    if resumed:
        complete(url, held, part)
        if pooch.file_hash(part) == held.sha256:
            return
        part.unlink()
    raise MirrorError("its bytes have the wrong SHA-256")


def complete(url: str, held: File | Archive, part: Path) -> bool:
    """Ask a mirror until `part` is as long as it should be.

    Returns:
        Whether the bytes come from more than one answer.

    Raises:
        MirrorError: it cut the connection without getting further, or too often.
    """
    cuts = 0
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
    """Append to `part` what one answer of a mirror gives of the bytes that it lacks.

    Raises:
        MirrorError: the connection failed, or the answer is not of the right length.
    """
    have = length(part)
    # Compressed on the way, the byte ranges would be those of other bytes.
    headers = {"User-Agent": f"seqbench/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with network():
        response = urlopen(Request(url, headers=headers), timeout=TIMEOUT)
    with response:
        if response.status != 206:
            have = 0
        if response.length is not None and have + response.length != held.size:
            raise MirrorError(f"has {have + response.length} bytes instead of {held.size}")
        # `disable=None`: no bar where stderr is not a terminal.
        with (
            part.open("ab" if have else "wb") as out,
            tqdm(
                desc=held.name,
                initial=have,
                total=held.size,
                unit="B",
                unit_scale=True,
                disable=None,
            ) as bar,
        ):
            # What an answer of unannounced length has beyond the size is not read.
            while have < held.size:
                with network():
                    chunk = response.read1(min(2**16, held.size - have))
                if not chunk:
                    raise MirrorError(f"broke off after {have} of {held.size} bytes")
                out.write(chunk)
                have += len(chunk)
                bar.update(len(chunk))


def length(part: Path) -> int:
    """Bytes received so far."""
    return part.stat().st_size if part.exists() else 0


@contextmanager
def network() -> Iterator[None]:
    """Turn what a connection can raise into MirrorError, lest it pass for a full disk."""
    try:
        yield
    except (OSError, HTTPException) as error:
        reason = error.reason if type(error) is URLError else error
        raise MirrorError(str(reason) or type(error).__name__) from error


def unpack(file: File, archive: Path) -> bytes:
    """Read one member of a zip archive, by its exact name and no further than its known size.

    So an archive can neither choose where its bytes go nor fill the memory.

    Raises:
        DataError: the archive does not hold the right bytes.
    """
    try:
        with zipfile.ZipFile(archive) as members, members.open(file.name) as member:
            data = member.read(file.size + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, RuntimeError) as error:
        raise DataError(f"cannot unpack {file.name} from {archive}: {error}") from error
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise DataError(f"{archive} holds a {file.name} with the wrong SHA-256")
    return data
