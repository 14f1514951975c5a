"""Truncated and corrupted checkpoints: the run resumes from the previous one, or fails."""

import random
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from small_run import Cut, Listener, difference, history, small

from seqbench.errors import RunError
from seqbench.experiment import run
from seqbench.runs.run import Run
from seqbench.training import checkpoint


def torn(content: bytes, dice: random.Random) -> bytes:
    return content[: dice.randrange(len(content))]


def flipped(content: bytes, dice: random.Random) -> bytes:
    rotten = bytearray(content)
    rotten[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    return bytes(rotten)


def zeroed(content: bytes, dice: random.Random) -> bytes:
    # What some file systems leave of a file that was not on disk when the power went.
    start = dice.randrange(len(content))
    return content[:start] + bytes(len(content) - start)


def empty(content: bytes, dice: random.Random) -> bytes:
    return b""


def noise(content: bytes, dice: random.Random) -> bytes:
    return dice.randbytes(len(content))


ROT = [torn] * 3 + [flipped] * 3 + [zeroed] * 2 + [empty, noise]


def name_of(seed: int) -> str:
    return f"{ROT[seed].__name__}-{seed}"


@pytest.mark.parametrize("seed", range(len(ROT)), ids=name_of)
def test_a_rotten_last_checkpoint_is_replaced_by_the_one_before(seed, cut_off, copied):
    folder = Run.of(copied(cut_off)).checkpoints
    last, previous = folder / checkpoint.LAST, folder / checkpoint.PREVIOUS
    tensors, facts = checkpoint.load(previous)
    last.write_bytes(ROT[seed](last.read_bytes(), random.Random(seed)))
    loaded, remark = checkpoint.load_last(folder)
    assert loaded[1] == facts
    assert loaded[0].keys() == tensors.keys()
    assert all(torch.equal(loaded[0][name], tensor) for name, tensor in tensors.items())
    assert remark.startswith(f"checkpoint {last} ")
    assert remark.endswith(": going on from the one before")
    assert checkpoint.load(last)[1] == facts
    assert not previous.exists()


@pytest.mark.parametrize("seed", map(ROT.index, dict.fromkeys(ROT)), ids=name_of)
def test_a_rotten_last_checkpoint_means_the_one_before(seed, cut_off, copied, undisturbed):
    config = copied(cut_off)
    last = Run.of(config).checkpoints / checkpoint.LAST
    last.write_bytes(ROT[seed](last.read_bytes(), random.Random(seed)))
    listener = Listener()
    assert run(config, listener).status == "completed"
    assert listener.step == 10
    assert listener.remark.endswith(": going on from the one before")
    assert str(last) in listener.remark
    assert "\n" not in listener.remark
    assert f"warning: {listener.remark}" in Run.of(config).log_path.read_text().splitlines()
    assert history(config)[1:] == [("resumed", 10), ("completed", 20)]
    assert difference(undisturbed, config) is None


def test_a_draft_that_was_never_finished_is_no_checkpoint(cut_off, copied, undisturbed):
    # Killed between setting the last one aside and putting the new one in its place.
    config = copied(cut_off)
    folder = Run.of(config).checkpoints
    (folder / checkpoint.LAST).unlink()
    with (
        patch("os.fsync", side_effect=Cut),
        patch.object(Path, "unlink"),  # a process that is dead tidies nothing up
        pytest.raises(Cut),
    ):
        checkpoint.save(folder / checkpoint.LAST, {}, {})
    assert len(list(folder.iterdir())) == 3
    assert run(config).status == "completed"
    assert history(config)[1] == ("resumed", 10)
    assert difference(undisturbed, config) is None  # and the draft is gone


def test_the_good_one_outlives_the_rotten_one(cut_off, copied, undisturbed):
    # The run that went on from the one before fails where it would write its next checkpoint.
    config = copied(cut_off)
    folder = Run.of(config).checkpoints
    (folder / checkpoint.LAST).write_bytes(b"rotten")
    save = checkpoint.save

    def full(path, *content):
        if path.name == checkpoint.LAST:
            raise OSError(28, "No space left on device")
        save(path, *content)

    with patch.object(checkpoint, "save", full), pytest.raises(RunError, match="No space left"):
        run(config)
    assert run(config).status == "completed"
    assert history(config)[1:] == [("resumed", 10), ("resumed", 10), ("completed", 20)]
    assert difference(undisturbed, config) is None


@pytest.mark.parametrize("seed", range(4))
def test_where_no_checkpoint_is_whole_only_force_helps(
    seed, cut_off, copied, undisturbed, seqbench
):
    config = copied(cut_off)
    folder = Run.of(config)
    for name in (checkpoint.LAST, checkpoint.PREVIOUS):
        path = folder.checkpoints / name
        path.write_bytes(ROT[seed * 3](path.read_bytes(), random.Random(seed)))
    events = folder.events_path.read_bytes()
    done = seqbench("train", "--resume", folder.folder)
    assert done.code == 1
    assert done.out == ""
    assert done.err.startswith("error: checkpoint ")
    assert done.err.endswith("--force starts the run again\n")
    assert done.err.count("\n") == 1
    assert folder.events_path.read_bytes() == events  # nothing was touched
    if seed == 0:
        assert seqbench("train", "--resume", folder.folder, "--force").code == 0
        assert difference(undisturbed, config) is None


def test_best_weights_that_are_rotten_or_gone_are_told_and_not_tested(
    undisturbed, copied, seqbench
):
    # Cut off after its last step, before the test.
    config = copied(undisturbed)
    folder = Run.of(config)
    folder.record_path.unlink()
    best = folder.checkpoints / checkpoint.BEST
    best.write_bytes(flipped(best.read_bytes(), random.Random(0)))
    done = seqbench("train", "--resume", folder.folder)
    assert done.code == 1
    assert done.err.splitlines()[-1].startswith(f"error: checkpoint {best} ")
    assert done.err.endswith("--force starts the run again\n")
    assert folder.record is None
    done = seqbench("eval", folder.folder)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert str(best) in done.err
    best.unlink()
    with pytest.raises(RunError, match="--force starts the run again"):
        run(config)
    assert seqbench("train", "--resume", folder.folder, "--force").code == 0
    assert difference(undisturbed, config) is None


def test_a_checkpoint_of_another_run_is_refused(cut_off, copied, tmp_path):
    other = small(tmp_path / "other", "model.channels=[4]")
    run(other)
    config = copied(cut_off)
    for name in (checkpoint.LAST, checkpoint.PREVIOUS):
        foreign = Run.of(other).checkpoints / checkpoint.LAST
        (Run.of(config).checkpoints / name).write_bytes(foreign.read_bytes())
    with pytest.raises(RunError, match="does not match this model"):
        run(config)


def test_what_is_loaded_lies_where_torch_would_have_put_it(undisturbed):
    # On some processors the last bits of a matrix product hang on how its operands are aligned.
    tensors, _ = checkpoint.load(Run.of(undisturbed).checkpoints / checkpoint.LAST)
    assert all(tensor.data_ptr() % 64 == 0 for tensor in tensors.values())
