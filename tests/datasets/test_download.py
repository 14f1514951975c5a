import hashlib
import io
import logging
import os
import socket
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from seqbench.datasets import download
from seqbench.datasets.catalog import DATASETS, Archive, find
from seqbench.datasets.download import data_folder, ensure
from seqbench.datasets.wav_archive import members_digest
from seqbench.errors import ConfigError, DataError, RunError


@pytest.fixture
def folder(tmp_path) -> Path:
    """Return the dataset's folder in the cache `tmp_path`."""
    path = tmp_path / "tiny"
    path.mkdir()
    return path


def fetched(folder: Path) -> bytes:
    """Return the file that `ensure` delivers."""
    paths = ensure("tiny", str(folder.parent))
    assert paths == {"data.bin": folder / "data.bin"}
    return paths["data.bin"].read_bytes()


def failure(kind, data_dir, **options) -> str:
    """Return the message of the error, which must be one line."""
    with pytest.raises(kind) as caught:
        ensure("tiny", str(data_dir), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rising(numbers: list[int]) -> bool:
    return all(a < b for a, b in pairwise(numbers))


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock"}


# Where the cache is


def test_the_argument_goes_before_the_environment_before_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert data_folder().name == "seqbench"
    monkeypatch.setenv("SEQBENCH_DATA", str(tmp_path / "environment"))
    assert data_folder() == tmp_path / "environment"
    assert data_folder(str(tmp_path / "argument")) == tmp_path / "argument"
    assert data_folder("~/data") == Path.home() / "data"


# Downloading


def test_a_missing_file_is_downloaded_once(tiny, mirror, folder, content):
    tiny("good")
    folder.rmdir()
    for _ in range(2):
        assert fetched(folder) == content
    assert mirror.requests == [("good", None)]
    assert left(folder) == {"data.bin"}


@pytest.mark.parametrize("way", ["moved", "endless"])
def test_a_redirect_is_followed_and_no_more_than_the_known_size_is_read(way, tiny, folder, content):
    tiny(way)
    assert fetched(folder) == content


@pytest.mark.parametrize("way", ["denied", "wrong", "short", "stuck", "silent"])
def test_a_mirror_that_fails_gives_way_to_the_next(way, tiny, mirror, folder, monkeypatch, content):
    tiny(way, "good")
    monkeypatch.setattr(download, "TIMEOUT", 0.3 if way == "silent" else 5.0)
    assert fetched(folder) == content
    assert mirror.requests[0][0] == way
    assert mirror.requests[-1][0] == "good"


def test_when_all_mirrors_fail_each_reason_is_named_and_what_to_do(tiny, mirror, folder, content):
    tiny("denied", "wrong", "short", "stuck")
    text = failure(DataError, folder.parent)
    assert f"{mirror.url('denied')}: HTTP Error 403" in text
    assert f"{mirror.url('wrong')}: its bytes have the wrong SHA-256" in text
    assert f"{mirror.url('short')}: has {len(content) - 1} bytes instead of {len(content)}" in text
    assert f"{mirror.url('stuck')}: " in text
    assert text.endswith(f"put it at {folder / 'data.bin'}")
    assert not (folder / "data.bin").exists()


def test_a_host_that_refuses_the_connection_is_one_reason(register, folder, content):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    register("data.bin", content, [f"http://127.0.0.1:{port}/data.bin"])
    assert "refused" in failure(DataError, folder.parent)


# Going on after a cut


def test_a_cut_download_goes_on_where_it_ended(tiny, mirror, folder, content):
    tiny("cut")
    assert "bytes" in failure(DataError, folder.parent)
    assert rising(mirror.offsets())
    assert len(mirror.requests) == download.CUTS + 1
    received = (folder / "data.bin.part").stat().st_size
    assert len(content) // 2 < received < len(content)
    tiny("good")
    assert fetched(folder) == content
    assert mirror.requests[-1] == ("good", f"bytes={received}-")
    assert left(folder) == {"data.bin"}


def test_the_next_mirror_goes_on_where_the_one_before_was_cut(tiny, mirror, folder, content):
    tiny("cut", "good")
    assert fetched(folder) == content
    assert rising(mirror.offsets())


def test_a_mirror_that_ignores_range_starts_again(tiny, mirror, folder, content):
    (folder / "data.bin.part").write_bytes(content[: len(content) // 2])
    tiny("plain")
    assert fetched(folder) == content
    assert mirror.requests == [("plain", f"bytes={len(content) // 2}-")]


@pytest.mark.parametrize("size", [1, 262_144, 262_145])
def test_a_part_of_something_else_is_discarded_once(size, tiny, mirror, folder, content):
    part = folder / "data.bin.part"
    part.write_bytes(b"x" * size)
    tiny("wrong")
    failure(DataError, folder.parent)
    assert mirror.offsets()[-1] == 0
    assert len(mirror.requests) == (2 if size < len(content) else 1)
    assert left(folder) == set()
    part.write_bytes(b"x" * size)
    tiny("good")
    assert fetched(folder) == content
    assert mirror.requests[-1] == ("good", None)
    assert left(folder) == {"data.bin"}


def test_a_complete_part_needs_no_network(tiny, mirror, folder, content):
    (folder / "data.bin.part").write_bytes(content)
    tiny("denied")
    assert fetched(folder) == content
    assert mirror.requests == []


# What is in the cache already


def test_a_file_with_the_wrong_checksum_is_moved_aside_and_fetched_again(
    tiny, mirror, folder, caplog, content
):
    tiny("good")
    (folder / "data.bin").write_bytes(b"rotten")
    failure(DataError, folder.parent, offline=True)
    assert mirror.requests == []
    aside = f"data.bin.bad-{hashlib.sha256(b'rotten').hexdigest()[:8]}"
    assert left(folder) == {aside}
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert aside in record.getMessage()
    assert fetched(folder) == content
    assert left(folder) == {"data.bin", aside}


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_offline_the_error_says_where_the_file_would_go(how, tiny, mirror, folder, monkeypatch):
    tiny("good")
    if how == "environment":
        monkeypatch.setenv("SEQBENCH_OFFLINE", "1")
    text = failure(DataError, folder.parent, offline=how == "argument")
    assert text.endswith(f"put it at {folder / 'data.bin'}")
    assert mirror.requests == []


def test_a_complete_cache_is_used_as_it_is_with_nothing_written(real_data, monkeypatch):
    monkeypatch.setenv("SEQBENCH_DATA", str(real_data))
    before = sorted(real_data.rglob("*"))
    paths = ensure("ptb", offline=True)
    assert paths["ptb.train.txt"] == real_data / "ptb" / "ptb.train.txt"
    assert sorted(real_data.rglob("*")) == before


# Folders and disks that cannot be written


@pytest.fixture
def read_only():
    """Provide a folder that is not writable, with an empty file and an unreadable one."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "tiny"
        folder.mkdir()
        (folder / "data.bin").touch()
        (folder / "secret.bin").touch(mode=0)
        Path(root).chmod(0o755)
        folder.chmod(0o555)
        if user == 0:  # whom no mode bits would stop
            os.seteuid(65534)
        try:
            yield folder
        finally:
            os.seteuid(user)
            folder.chmod(0o755)


def test_a_read_only_folder(tiny, mirror, register, read_only, content):
    tiny("good")
    text = failure(DataError, read_only.parent)
    assert "wrong SHA-256 and cannot be moved aside (Permission denied)" in text
    assert mirror.requests == []
    register("other.bin", content, [mirror.url("good")])
    for folder in (read_only.parent, read_only / "new" / "cache"):
        assert "Permission denied" in failure(RunError, folder)
    assert "put it at" in failure(DataError, read_only.parent, offline=True)
    register("secret.bin", b"", [])
    secret = read_only / "secret.bin"
    assert failure(DataError, read_only.parent) == f"cannot read {secret}: Permission denied"
    register("data.bin", b"", [mirror.url("good")])
    assert ensure("tiny", str(read_only.parent)) == {"data.bin": read_only / "data.bin"}
    assert {path.name for path in read_only.iterdir()} == {"data.bin", "secret.bin"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a full disk")
def test_a_full_disk_is_a_failure_of_the_run(tiny, folder):
    (folder / "data.bin.part").symlink_to("/dev/full")
    tiny("good")
    assert "No space left on device" in failure(RunError, folder.parent)
    assert not (folder / "data.bin").exists()


def test_a_data_folder_that_is_a_file_is_a_failure_of_the_run(tiny, tmp_path):
    (tmp_path / "file").touch()
    tiny("good")
    assert f"cannot write {tmp_path / 'file'}" in failure(RunError, tmp_path / "file")


# Archives


def zipped(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "../"), data)
    return out.getvalue()


@pytest.fixture
def packed(mirror, register, content):
    """Return a function that registers `data.bin` as a member of an archive."""

    def at(data: bytes) -> None:
        mirror.files["data.zip"] = data
        archive = Archive("data.zip", len(data), hashlib.sha256(data).hexdigest())
        register("data.bin", content, [mirror.url("good", "data.zip")], archive)

    return at


def test_a_file_is_taken_out_of_its_archive_and_the_archive_goes(packed, mirror, folder, content):
    data = zipped(**{"data.bin": content, "more": b"more"})
    packed(data)
    text = failure(DataError, folder.parent, offline=True)
    assert text.endswith(f"put it as it is inside data.zip at {folder / 'data.bin'}")
    (folder / "data.zip.part").write_bytes(data[:1000])
    assert fetched(folder) == content
    assert mirror.requests == [("good", "bytes=1000-")]
    assert left(folder) == {"data.bin"}


@pytest.mark.parametrize(
    "members",
    [{"data.bin": b"wrong"}, {"data.bin": bytes(50_000_000)}, {"__data.bin": b"out"}, None],
    ids=["wrong", "bomb", "outside", "not a zip"],
)
def test_an_archive_with_anything_else_in_it_is_refused(members, packed, folder):
    packed(zipped(**members) if members else b"not a zip at all")
    assert "data.zip" in failure(DataError, folder.parent)
    assert not (folder / "data.bin").exists()
    assert {path.name for path in folder.parent.iterdir()} == {"tiny"}
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1_000_000


# Two at once

FETCH = """
import sys
from seqbench.datasets import catalog, download
url, size, digest, data_dir = sys.argv[1:]
file = catalog.File("data.bin", int(size), digest, (url,))
catalog.DATASETS["tiny"] = catalog.Dataset("tiny", "a test", "none", (file,))
print(download.ensure("tiny", data_dir)["data.bin"])
"""


def test_of_two_processes_one_downloads_and_both_have_the_file(mirror, folder, content):
    digest = hashlib.sha256(content).hexdigest()
    arguments = [mirror.url("slow"), str(len(content)), digest, str(folder.parent)]
    processes = [
        subprocess.Popen([sys.executable, "-c", FETCH, *arguments], stdout=-1, stderr=-1, text=True)
        for _ in range(2)
    ]
    results = [process.communicate() for process in processes]
    # No progress bar either, since stderr is not a terminal.
    assert results == [(f"{folder / 'data.bin'}\n", "")] * 2
    assert mirror.requests == [("slow", None)]
    assert (folder / "data.bin").read_bytes() == content


def test_an_unknown_dataset_is_a_mistake_in_the_command():
    with pytest.raises(ConfigError, match="did you mean 'text8'"):
        ensure("text9")


@pytest.mark.parametrize("way", ["good", "plain", "unknown"])
def test_an_archive_that_mirrors_pack_themselves_is_checked_by_its_members(
    way, mirror, register, monkeypatch, folder
):
    packed = {}
    for name, level in (("mine", 0), ("theirs", 9)):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as archive:
            archive.writestr(f"{name}/1.wav", bytes(50_000))
        packed[name] = out.getvalue()
    (folder / "my.zip").write_bytes(packed["mine"])
    members = members_digest(folder / "my.zip")
    file = register("data.bin", packed["mine"], [mirror.url("denied"), mirror.url(way)])
    file = replace(file, members=members)
    tiny = replace(find("tiny"), files=(file,))
    monkeypatch.setitem(DATASETS, "tiny", tiny)
    assert tiny.checksums == {"tiny/data.bin": members}
    mirror.files["data.bin"] = packed["theirs"]
    (folder / "data.bin.part").write_bytes(b"of an interrupted download")
    assert fetched(folder) == packed["theirs"]
    (folder / "data.bin").write_bytes(packed["theirs"][:-1])
    assert fetched(folder) == packed["theirs"]
    with zipfile.ZipFile(folder / "data.bin", "w") as archive:
        archive.writestr("../1.wav", bytes(50_000))
    assert fetched(folder) == packed["theirs"]
