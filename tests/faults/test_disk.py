"""Disks that are full, limited or read-only, and folders that vanish while a run trains."""

import os
import resource
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from small_run import Cut, CutAt, difference, history, small

from seqbench.config import trust
from seqbench.errors import RunError
from seqbench.experiment import run
from seqbench.runs.observer import Observer
from seqbench.runs.run import Run
from seqbench.training import checkpoint

PAGE = 4096


@pytest.fixture
def tmpfs(tmp_path):
    """Mount a disk of 400 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@contextmanager
def room_for(pages: int, disk: Path):
    """Fill a disk except for `pages` pages."""
    ballast = disk / "ballast"
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    ballast.write_bytes(bytes(max(0, free - pages * PAGE)))
    yield
    ballast.unlink()


@contextmanager
def largest_file(size: int):
    """Limit the size of a file, as a quota does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fails_or_finishes(config, reason: str) -> bool:
    """Continue a run whose files can be read whatever happens; return True if it failed."""
    folder = Run.of(config)
    try:
        run(config)
    except RunError as error:
        said = str(error)
    else:
        return False
    finally:
        assert folder.record is None or folder.record.status == "completed"
        checkpoint.load_last(folder.checkpoints)
        if (folder.folder / "config.yaml").exists():
            assert trust.read(folder.folder / "config.yaml") == config
    assert reason in said
    assert "\n" not in said
    return True


@pytest.mark.parametrize("pages", range(0, 44, 4))
def test_a_full_disk(pages, tmpfs, undisturbed):
    config = small(tmpfs)
    with room_for(pages, tmpfs):
        failed = fails_or_finishes(config, "No space left on device")
        assert failed or pages > 20
        if failed:  # trying in vain does no harm
            assert fails_or_finishes(config, "No space left on device")
    assert run(config).status == "completed"
    assert difference(undisturbed, config) is None


def test_what_a_full_disk_says_and_leaves(tmpfs, seqbench, undisturbed):
    config = small(tmpfs)
    folder = Run.of(config)
    with pytest.raises(Cut):
        run(config, CutAt(12))  # the checkpoint of step 10 is there
    with room_for(0, tmpfs):
        done = seqbench("train", "--resume", folder.folder)
        assert done.code == 1
        assert done.err.splitlines()[-1].startswith(f"error: run {folder.run_id} stopped: No space")
        assert "Traceback" not in done.err
        for command in (["runs"], ["table"]):
            assert seqbench(*command, "--output-dir", tmpfs).code == 0
        assert seqbench("show", folder.folder).code == 0
        assert seqbench("eval", folder.folder).code == 0
    assert seqbench("train", "--resume", folder.folder).code == 0
    assert set(history(config)[1:]) == {("resumed", 10), ("completed", 20)}
    assert difference(undisturbed, config) is None


@pytest.mark.parametrize("size", range(0, 44_000, 4_000))
def test_a_quota(size, tmp_path, undisturbed):
    config = small(tmp_path)
    with largest_file(size):
        failed = fails_or_finishes(config, "File too large")
        assert failed or size > 20_000
    assert run(config).status == "completed"
    assert difference(undisturbed, config) is None


@pytest.fixture
def read_only(request, tmp_path):
    """Return a folder, and a context in which it is read-only: by a mount, else by its mode."""
    if os.geteuid() == 0:
        disk = request.getfixturevalue("tmpfs")
    else:
        disk = tmp_path / "disk"
        disk.mkdir()

    def allow(writing: bool) -> None:
        if os.geteuid() == 0:
            mode = "remount,rw" if writing else "remount,ro"
            subprocess.run(["mount", "-o", mode, str(disk)], check=True)
        else:
            for folder in (disk, *(path for path in disk.rglob("*") if path.is_dir())):
                folder.chmod(0o755 if writing else 0o555)

    @contextmanager
    def made():
        allow(False)
        yield
        allow(True)

    return disk, made


def test_a_read_only_folder(read_only, seqbench, undisturbed):
    disk, made = read_only
    config = small(disk)
    folder = Run.of(config)
    with made(), pytest.raises(RunError, match=r"stopped: (Read-only file|Permission denied)"):
        run(config)
    with pytest.raises(Cut):
        run(config, CutAt(18))
    with made():
        done = seqbench("train", "--resume", folder.folder)
        assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
        assert done.err.startswith(f"error: run {folder.run_id} stopped: ")
        assert seqbench("show", folder.folder).code == 0
        assert seqbench("eval", folder.folder).code == 0
    assert run(config).status == "completed"
    assert history(config)[1:] == [("resumed", 15), ("completed", 20)]
    with made():  # and a finished run is shown
        assert seqbench("train", "--resume", folder.folder).code == 0
    assert difference(undisturbed, config) is None


class Vandal(Observer):
    """Removes a folder at an event, counted from 0."""

    def __init__(self, folder: Path, event: int) -> None:
        self.folder, self.left = folder, event

    def event(self, event):
        if self.left == 0:
            shutil.rmtree(self.folder)
        self.left -= 1


# The small run has 15 events.
VANISHING = [("run", i) for i in range(0, 15, 2)] + [("checkpoints", i) for i in (0, 6, 14)]


@pytest.mark.parametrize(("part", "event"), VANISHING)
def test_a_folder_that_vanishes(part, event, tmp_path, undisturbed):
    config = small(tmp_path)
    folder = Run.of(config)
    victim = folder.folder if part == "run" else folder.checkpoints
    with pytest.raises(RunError, match="No such file or directory") as caught:
        run(config, Vandal(victim, event))
    assert "\n" not in str(caught.value)
    assert run(config).status == "completed"
    assert history(config)[-2:] == [("started", 0), ("completed", 20)]
    assert difference(undisturbed, config) is None
