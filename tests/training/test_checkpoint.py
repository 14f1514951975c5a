import os
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqbench.errors import RunError
from seqbench.training import checkpoint

TENSORS = {
    "model.weight": torch.arange(6.0).reshape(2, 3),
    "model.steps": torch.tensor(3),
    "random.cpu": torch.tensor([1, 0, 255], dtype=torch.uint8),
}
FACTS = {"step": 7, "best": 0.1, "note": "é"}

DTYPES = [
    torch.float32,
    torch.float64,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.uint8,
    torch.bool,
]
tensors = st.builds(
    lambda shape, dtype, seed: (
        torch.empty(shape)
        .normal_(generator=torch.Generator().manual_seed(seed))
        .mul(3)
        .abs()
        .to(dtype)
    ),
    st.lists(st.integers(0, 4), max_size=3),
    st.sampled_from(DTYPES),
    st.integers(0, 99),
)
facts = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.text(st.characters(codec="ascii"), min_size=1), tensors, max_size=4),
    st.dictionaries(st.text(), facts, max_size=4),
)
def test_reads_back_what_was_saved(tmp_path_factory, named, said):
    named.pop("__metadata__", None)  # the format's own
    path = tmp_path_factory.mktemp("checkpoint") / "last.safetensors"
    checkpoint.save(path, named, said)
    read, read_facts = checkpoint.load(path)
    assert read_facts == said
    assert read.keys() == named.keys()
    for name, tensor in named.items():
        assert read[name].dtype == tensor.dtype
        assert read[name].shape == tensor.shape
        assert torch.equal(read[name], tensor)


def test_takes_tensors_that_are_views_and_need_gradients(tmp_path):
    weight = torch.arange(6.0).reshape(2, 3).requires_grad_()
    checkpoint.save(tmp_path / "a", {"t": weight.T, "column": weight[:, 1]}, {})
    read, _ = checkpoint.load(tmp_path / "a")
    assert torch.equal(read["t"], weight.detach().T)
    assert torch.equal(read["column"], torch.tensor([1.0, 4.0]))
    assert not read["t"].requires_grad


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "last.safetensors"
    checkpoint.save(path, TENSORS, FACTS)
    return path


@pytest.mark.parametrize("flip", [0x01, 0x80])
def test_every_flipped_byte_is_found(saved, flip):
    whole = saved.read_bytes()
    for place in range(len(whole)):
        rotten = bytearray(whole)
        rotten[place] ^= flip
        saved.write_bytes(rotten)
        with pytest.raises(RunError, match=r"last\.safetensors (cannot be read|is damaged)"):
            checkpoint.load(saved)


def test_every_torn_file_is_found(saved):
    whole = saved.read_bytes()
    for end in range(len(whole)):
        saved.write_bytes(whole[:end])
        with pytest.raises(RunError, match="cannot be read"):
            checkpoint.load(saved)


def test_a_file_of_another_kind(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, tmp_path / "foreign.safetensors")
    for path in (tmp_path / "foreign.safetensors", tmp_path / "nowhere.safetensors", tmp_path):
        with pytest.raises(RunError, match="cannot be read"):
            checkpoint.load(path)


@pytest.mark.parametrize("fails", [(os, "fsync"), (Path, "replace"), (Path, "open")])
def test_a_save_that_fails_leaves_the_file_before(saved, fails):
    with (
        patch.object(*fails, side_effect=OSError(28, "No space left on device")),
        pytest.raises(OSError, match="No space left"),
    ):
        checkpoint.save(saved, {"model.weight": torch.zeros(1)}, {"step": 8})
    assert checkpoint.load(saved)[1] == FACTS
    assert list(saved.parent.iterdir()) == [saved]


@pytest.fixture
def two(tmp_path):
    """Provide a folder with the last checkpoint, of step 2, and the previous one."""
    for step in (1, 2):
        checkpoint.keep_previous(tmp_path)
        checkpoint.save(tmp_path / checkpoint.LAST, TENSORS, {"step": step})
    return tmp_path


def test_goes_on_from_the_last(two):
    (_, facts), remark = checkpoint.load_last(two)
    assert (facts, remark) == ({"step": 2}, None)


def test_goes_on_from_the_one_before_where_the_last_is_torn(two):
    whole = (two / checkpoint.LAST).read_bytes()
    (two / checkpoint.LAST).write_bytes(whole[:-1])
    (_, facts), remark = checkpoint.load_last(two)
    assert facts == {"step": 1}
    assert remark.endswith("going on from the one before")
    # Setting the last one aside must not put the torn one in the place of the good one.
    checkpoint.keep_previous(two)
    assert checkpoint.load_last(two)[0][1] == {"step": 1}


def test_goes_on_from_the_one_before_if_killed_between_the_two(two):
    checkpoint.keep_previous(two)
    (_, facts), remark = checkpoint.load_last(two)
    assert (facts, remark) == ({"step": 2}, None)


def test_neither_of_them_is_whole(two):
    for name in (checkpoint.LAST, checkpoint.PREVIOUS):
        (two / name).write_bytes(b"")
    with pytest.raises(RunError, match="--force starts the run again"):
        checkpoint.load_last(two)


def test_there_is_none_yet(tmp_path):
    assert checkpoint.load_last(tmp_path) == (None, None)
