"""Files of piano rolls: damaged ones and ones of other content cost one line."""

import sys

import numpy as np
import pytest

from seqbench.datasets.music import NAMES, read_rolls
from seqbench.errors import ConfigError, DataError

io = pytest.importorskip("scipy.io")


def written(path, **changes):
    arrays = {}
    for name, count in zip(NAMES.values(), (3, 2, 1), strict=True):
        rolls = np.empty(count, object)
        for i in range(count):
            rolls[i] = np.eye(4 + i, 88, dtype=np.uint8)
        arrays[name] = rolls
    io.savemat(path, {k: v for k, v in (arrays | changes).items() if v is not None})
    return path


def test_rolls_come_by_split(tmp_path):
    found = read_rolls(written(tmp_path / "a.mat"))
    assert {split: [roll.shape for roll in own] for split, own in found.items()} == {
        "train": [(4, 88), (5, 88), (6, 88)],
        "valid": [(4, 88), (5, 88)],
        "test": [(4, 88)],
    }
    assert (found["test"][0] == np.eye(4, 88)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"testdata": None}, "expected the arrays traindata, validdata, testdata"),
        ({"testdata": np.ones((1, 3))}, r"testdata, sequence 1: expected \(steps, 88\) of 0 and 1"),
        ({"validdata": np.array([[0.5] * 88], object)}, "of 0 and 1, got shape"),
    ],
)
def test_other_content_is_refused(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        read_rolls(written(tmp_path / "a.mat", **change))


def test_a_damaged_file_is_one_line(tmp_path):
    path = written(tmp_path / "a.mat")
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(DataError, match="cannot read") as error:
        read_rolls(path)
    assert "\n" not in str(error.value)


def test_without_scipy_the_error_names_the_install_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(ConfigError, match=r"pip install 'seqbench\[music\]'"):
        read_rolls(tmp_path / "a.mat")
