"""Files that a crash truncated, or that are missing."""

import os
import shutil
from pathlib import Path
from unittest.mock import patch

import pytest
from small_run import Cut, Listener, difference, history, small

from seqbench.errors import RunError
from seqbench.experiment import run
from seqbench.runs.record import RecordError
from seqbench.runs.run import Run
from seqbench.training import checkpoint


@pytest.mark.parametrize("tail", [0, 1, 9, 19])
def test_events_survive_a_torn_last_line(tail, cut_off, copied, undisturbed, seqbench):
    config = copied(cut_off)
    path = Run.of(config).events_path
    whole = path.read_bytes()
    last = whole[:-1].rindex(b"\n") + 1
    path.write_bytes(whole[: last + 1 + tail])
    shown = seqbench("runs", "--output-dir", config["output_dir"])
    assert (shown.code, shown.err) == (0, "")
    assert run(config).status == "completed"
    assert difference(undisturbed, config) is None


@pytest.mark.parametrize("left", [b"", b'{"step": 3, "spl'])
def test_events_that_a_checkpoint_counts_on_and_that_are_gone(left, cut_off, copied, undisturbed):
    config = copied(cut_off)
    path = Run.of(config).events_path
    path.write_bytes(left)
    with pytest.raises(RunError, match="has lost events") as caught:
        run(config)
    assert "--force" in str(caught.value)
    assert path.read_bytes() == left  # no hole of zeros in place of what is lost
    run(config, force=True)
    assert difference(undisturbed, config) is None


def test_events_are_on_disk_before_the_checkpoint_that_counts_on_them(tmp_path):
    config = small(tmp_path)
    events = Run.of(config).events_path
    fsync, replace = os.fsync, Path.replace
    on_disk, counted = 0, []

    def noting_fsync(file):
        nonlocal on_disk
        fsync(file)
        if events.exists() and os.path.samestat(os.fstat(file), events.stat()):
            on_disk = os.fstat(file).st_size

    def noting_replace(path, target):
        if target.name == checkpoint.LAST:
            counted.append((on_disk, checkpoint.load(path)[1]["events_offset"]))
        return replace(path, target)

    with patch("os.fsync", noting_fsync), patch.object(Path, "replace", noting_replace):
        run(config)
    assert len(counted) == 4
    assert all(there >= needed > 0 for there, needed in counted)


@pytest.mark.parametrize("content", [b"", b"seed: 0\nmodel:\n  _tar", b"\x00" * 600, b"\xff\xfe"])
def test_a_torn_configuration(content, cut_off, copied, undisturbed, seqbench):
    config = copied(cut_off)
    path = Run.of(config).folder / "config.yaml"
    whole, full = path.read_bytes(), OSError(28, "No space left on device")
    with patch("os.fsync", side_effect=full), pytest.raises(RunError, match="No space left"):
        run(config)
    assert path.read_bytes() == whole  # while it is written
    path.write_bytes(content)
    done = seqbench("train", "--resume", path.parent)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert seqbench("runs", "--output-dir", config["output_dir"]).code == 0
    assert seqbench("show", path.parent).code == 0
    # The command that began the run knows its configuration.
    assert run(config).status == "completed"
    assert path.read_bytes() != content
    assert difference(undisturbed, config) is None


@pytest.mark.parametrize("content", [b"", b'{"schema": 1', b"\x00" * 300, b"[]", b'{"schema": 99}'])
def test_a_damaged_record_is_told_and_force_runs_again(
    content, undisturbed, copied, tmp_path, seqbench
):
    config = copied(undisturbed)
    folder = Run.of(config)
    folder.record_path.write_bytes(content)
    with pytest.raises(RecordError):
        run(config)
    for command in (["train", "--resume", folder.folder], ["show", folder.folder]):
        done = seqbench(*command)
        assert (done.code, done.out) == (1, "")
        assert done.err.startswith(f"error: {folder.record_path}: ")
        assert done.err.count("\n") == 1
    for command in ("table", "runs"):
        done = seqbench(command, "--output-dir", config["output_dir"])
        assert done.code == 0
        assert done.err.startswith(f"left out: {folder.record_path}: ")
    assert run(config, force=True).status == "completed"
    assert difference(undisturbed, config) is None


@pytest.mark.slow
def test_starting_over_may_be_cut_off_too(undisturbed, tmp_path):
    """Interrupt a restart before each file that it removes; the run then resumes or starts."""
    unlink = Path.unlink
    for allowed in range(30):
        config = undisturbed | {"output_dir": str(tmp_path / str(allowed))}
        shutil.copytree(undisturbed["output_dir"], config["output_dir"])
        removed = 0

        def limited(path, missing_ok=False, config=config, allowed=allowed):
            nonlocal removed
            if path.is_relative_to(config["output_dir"]):
                if removed == allowed:
                    raise Cut
                removed += 1
            unlink(path, missing_ok)

        listener = Listener()
        try:
            with patch.object(Path, "unlink", limited):
                run(config, force=True)
            finished = True
        except Cut:
            finished = False
        assert run(config, listener).status == "completed"
        assert difference(undisturbed, config) is None
        if finished:
            break
    assert allowed > 5
    assert ("started", 0) in history(config)
