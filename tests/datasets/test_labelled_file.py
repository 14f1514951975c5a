"""Labelled sequences are read alike from each kind of file, or refused in one line."""

import hashlib
import io
import zipfile

import duckdb
import numpy as np
import pytest

from seqbench.datasets.labelled_file import read_labelled
from seqbench.datasets.ts_file import read_ts
from seqbench.errors import ConfigError, DataError

LENGTHS = [3, 1, 4]
VALUES = [
    [[1.0, 10], [2, 20.5], [np.nan, 30]],
    [[4.0, 40]],
    [[5.0, 50], [6, 60], [7, 70], [8, 80]],
]
LABELS = ["walk", "run", "walk"]
TS = """#a comment
@problemName Steps
@timeStamps false
@missing true
@univariate false
@dimensions 2
@equalLength false
@classLabel true run walk
@data
1.0,2,?:10,20.5,30:walk
4:40:run
5,6,7,8:50,60,70,80:walk
"""
# SHA-256 of the values as float64, one sequence after the other, of the lengths as int64, and of
# the classes in lower case, joined by blanks, as aeon 1.6.0 reads the files of the archive:
#     x, y = aeon.datasets.load_from_ts_file(path)
#     np.concatenate([series.T for series in x]), [series.shape[1] for series in x], y
# aeon itself needs numba, pandas and scikit-learn, which are too much for a test.
AEON = {
    "ACSF1_TEST": "84bc12452e4b4453",
    "ACSF1_TRAIN": "fa0319a97b21dd59",
    "ArrowHead_TEST": "9dc829830c0e08fd",
    "ArrowHead_TRAIN": "5cd660ad4aa1cb94",
    "BasicMotions_TEST": "5051f0e7d23fc462",
    "BasicMotions_TRAIN": "8c773c824dc22a46",
    "GunPoint_TEST": "9ddb5033e8b0a7a8",
    "GunPoint_TRAIN": "ce06565b48bfc15e",
    "ItalyPowerDemand_TEST": "4a50735e8d300fdd",
    "ItalyPowerDemand_TRAIN": "41d86a2d45d33201",
    "JapaneseVowels_TEST": "275dca4a0304c66a",
    "JapaneseVowels_TRAIN": "dda5c23c8ed706ea",
    "OSULeaf_TEST": "0ee8c841870a1a50",
    "OSULeaf_TRAIN": "34e1beeb0c3e7de4",
    "PickupGestureWiimoteZ_TEST": "0e1abef862f4ccff",
    "PickupGestureWiimoteZ_TRAIN": "0d869b286d44d949",
}


def write(folder, kind):
    if kind == "ts":
        (folder / "x.ts").write_text(TS)
    elif kind == "npz":
        x = np.full((3, 4, 2), -1.0)
        for row, values in zip(x, VALUES, strict=True):
            row[: len(values)] = values
        np.savez(folder / "x.npz", x=x, y=LABELS, lengths=LENGTHS)
    else:
        rows = ["id,time,label,channel_1,channel_2,place"]
        for i, (values, label) in enumerate(zip(VALUES, LABELS, strict=True)):
            for t, (a, b) in enumerate(values):
                rows.append(f"{9 - i},{t},{label},{'' if np.isnan(a) else a},{b},here")
        # Rows of sequences may alternate.
        rows[3], rows[4] = rows[4], rows[3]
        (folder / "x.csv").write_text("\n".join(rows) + "\n")
        if kind == "parquet":
            duckdb.read_csv(str(folder / "x.csv")).write_parquet(str(folder / "x.parquet"))
    return str(folder / f"x.{kind}")


@pytest.mark.parametrize("kind", ["ts", "npz", "csv", "parquet"])
def test_each_kind_of_file_gives_the_same_sequences(tmp_path, kind):
    rows = write(tmp_path, kind)
    found = read_labelled(rows)
    assert found.channels == ("channel_1", "channel_2")
    assert found.labels is not None
    names = {name: i for i, name in enumerate(found.names)} or {"9": 0, "8": 1, "7": 2}
    for name, values, label in zip("987", VALUES, LABELS, strict=True):
        i = names[name]
        own = slice(found.starts[i], found.starts[i] + found.lengths[i])
        assert np.array_equal(found.values[own], values, equal_nan=True)
        assert found.labels[i] == label


def test_classes_are_texts_whatever_holds_them(tmp_path):
    for y in ([2, 1], [2.0, 1.0], [b"2", b"1"], ["2", "1"]):
        np.savez(tmp_path / "x.npz", x=np.ones((2, 3)), y=np.array(y))
        assert read_labelled(str(tmp_path / "x.npz")).labels == ("2", "1")
    np.savez(tmp_path / "x.npz", x=np.ones((2, 3, 1)), channels=["left"])
    found = read_labelled(str(tmp_path / "x.npz"))
    assert (found.labels, found.channels) == (None, ("left",))


class Touches:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_an_array_of_objects_runs_no_code(tmp_path):
    objects = np.empty(2, object)
    objects[:] = [Touches(str(tmp_path / "touched")), np.ones(3)]
    np.savez(tmp_path / "x.npz", x=objects, y=[0, 1])
    with pytest.raises(DataError, match="pad x on the right to one length, and save lengths"):
        read_labelled(str(tmp_path / "x.npz"))
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"y": [1]}, "has no array x"),
        ({"x": np.ones(4)}, r"expected x of shape .* got \(4,\)"),
        ({"x": np.ones((0, 4))}, "x is empty"),
        ({"x": [["a", "b"]]}, "expected numbers in x, got <U1"),
        ({"x": np.ones((2, 3)), "y": [1]}, "expected 2 classes in y"),
        ({"x": np.ones((2, 3)), "y": [1.5, 2]}, "expected integers or texts in y, got float64"),
        ({"x": np.ones((2, 3)), "lengths": [3]}, "expected 2 integers in lengths"),
        ({"x": np.ones((2, 3)), "lengths": [3, 4]}, "sequence 2: lengths says 4 steps, expected"),
        ({"x": np.ones((2, 3)), "lengths": [0, 3]}, "sequence 1: lengths says 0 steps"),
        ({"x": np.ones((2, 3)), "channels": ["a", "b"]}, "expected 1 different names"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, arrays, said):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=said):
        read_labelled(str(tmp_path / "x.npz"))


def test_a_broken_npz_file_is_refused(tmp_path):
    np.savez(tmp_path / "whole.npz", x=np.arange(4000.0).reshape(40, 100))
    whole = (tmp_path / "whole.npz").read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 1
    for data, said in {
        b"": "is empty",
        b"x = 1": "is no npz file",
        whole[:-30]: "is no npz file",
        bytes(damaged): "cannot read",
    }.items():
        (tmp_path / "x.npz").write_bytes(data)
        with pytest.raises(DataError, match=said):
            read_labelled(str(tmp_path / "x.npz"))
    with pytest.raises(DataError, match="is not there"):
        read_labelled(str(tmp_path / "no.npz"))


def packed(content, compression=zipfile.ZIP_STORED):
    """Return a zip archive with one file, x.npy."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        archive.writestr("x.npy", content)
    return bytearray(out.getvalue())


def array(values, *, pickle=False):
    """Return the bytes of an npy file."""
    out = io.BytesIO()
    np.save(out, np.asarray(values), allow_pickle=pickle)
    return out.getvalue()


def header(text):
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def changed(data, places, value):
    """Return an archive with a field changed, in the local header and in the directory."""
    for place, start in zip(places, (0, data.index(b"PK\x01\x02")), strict=True):
        data[start + place] = value
    return data


def damaged(data):
    data[60:80] = bytes(20)
    return data


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (packed(b"no array"), "cannot read .*x.npz, array x: .*magic string"),
        (packed(b""), "cannot read .*, array x: "),
        (packed(header(b"{'descr': (")), "cannot read .*, array x: "),
        (packed(header(b"{'descr': '<f8', 'fortran_order': False, 'shape': (2, 9)}")), "array x: "),
        (changed(packed(array([[1.0]])), (6, 8), 1), "array x: .* is encrypted"),
        (changed(packed(array([[1.0]])), (8, 10), 77), "array x: .*compression.* not supported"),
        (damaged(packed(array(np.ones((9, 99))), zipfile.ZIP_LZMA)), "cannot read .*, array x: "),
        (array([1.0]) + packed(array([[[[1.0]]]])), r"expected x of shape .* got \(1, 1, 1, 1\)"),
        (packed(array([None], pickle=True)), "x.npz: x is an array of objects"),
    ],
)
def test_a_member_that_is_no_array_is_refused(tmp_path, data, said):
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(DataError, match=said):
        read_labelled(str(tmp_path / "x.npz"))


def test_arrays_larger_than_the_memory_are_not_unpacked(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros((1000, 1000)))
    monkeypatch.setattr("seqbench.datasets.npz_file.memory", lambda: 2**20)
    with pytest.raises(DataError, match=r"its arrays have .* more than .* of memory"):
        read_labelled(str(tmp_path / "x.npz"))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (TS, "", "is empty"),
        ("@data\n", "", "has no line @data"),
        ("4:40:run\n", "4:40:jump\n", "line 11: expected a class .* run, walk, got 'jump'"),
        ("4:40:run\n", "4:run\n", "line 11: expected 2 channels, as the header says, got 1"),
        ("4:40:run\n", "4:40,41:run\n", "line 11: expected channels of one length, got 1 to 2"),
        ("4:40:run\n", "4:four:run\n", "line 11: value 1 is 'four', expected a number, or"),
        ("4:40:run\n", "4:40:\n", "line 11: expected a class after the last colon"),
        ("@timeStamps false", "@timeStamps true", "@timeStamps true is not read"),
        ("@problemName Steps", "a line", "line 2: expected a line of the header"),
        ("@equalLength false", "@equalLength true\n@seriesLength 3", "line 12: expected 3 values"),
        ("@dimensions 2", f"@dimensions {'9' * 5000}", "line 10: expected 9{40} channels, as the"),
        ("@classLabel true run walk", "@targetLabel true", "is a regression problem"),
        (TS[TS.index("1.0") :], "", "has no sequence after @data"),
    ],
)
def test_a_ts_file_that_does_not_fit_is_refused(tmp_path, old, new, said):
    assert old in TS
    (tmp_path / "x.ts").write_text(TS.replace(old, new))
    with pytest.raises(DataError, match=said):
        read_ts(str(tmp_path / "x.ts"))


def test_the_keys_and_values_of_a_ts_header_are_in_any_case(tmp_path):
    header = TS.replace("@equalLength false", "@EQUALLENGTH False\n@seriesLength 100")
    (tmp_path / "x.ts").write_text(header.replace("@dimensions 2", "@dimensions 002"))
    assert read_ts(str(tmp_path / "x.ts")).lengths.tolist() == LENGTHS


def test_classes_that_are_not_wanted_are_not_read(tmp_path):
    (tmp_path / "x.csv").write_text("id,label,x\na,,1\na,2,2\nb,,3\n")
    (tmp_path / "x.ts").write_text("@classLabel true run\n@data\n1,2:?\n3,4:\n")
    np.savez(tmp_path / "x.npz", x=[[1.0, 2]], y=[np.nan])
    for name, values in {"x.csv": [1, 2, 3], "x.ts": [1, 2, 3, 4], "x.npz": [1, 2]}.items():
        found = read_labelled(str(tmp_path / name), with_labels=False)
        assert (found.labels, found.values.ravel().tolist()) == (None, values)
        with pytest.raises(DataError):
            read_labelled(str(tmp_path / name))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,label,x\na,1,1\na,2,1\n", "row 2: label is '2', and the first row .* has '1'"),
        ("id,label,x\na,1,1\n,1,1\n", "row 2: id is missing"),
        ("id,label,x\na,1,1\nb,,1\n", "row 2: label is missing"),
        ("id,time,label,x\na,1,1,1\na,1,1,1\n", "row 2: the time is not later than"),
        ("id,time,label,x\na,1,1,1\na,,1,1\n", "row 2: time is missing"),
        ("id,label,x\n" + "a,1,1\n" * 9 + "a,1,b\n", "row 10: x is 'b', expected a number"),
        ("id,label,x\na,1,red\nb,1,blue\n", "has no column of numbers beside id, time and label"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path, text, said):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        read_labelled(str(tmp_path / "x.csv"))


def test_ids_and_labels_are_texts_as_they_are_written(tmp_path):
    # DuckDB takes types from the first 20,480 rows.
    rows = [f"{1 + i // 7000}, {i},{1 + i // 7000}" for i in range(21_000)]
    rows += ["1.1,0.5,10", "1.10,1,other"]
    (tmp_path / "x.csv").write_text("\n".join(["id,x,label", *rows]) + "\n")
    found = read_labelled(str(tmp_path / "x.csv"))
    assert found.names == ("1", "2", "3", "1.1", "1.10")
    assert found.labels == ("1", "2", "3", "10", "other")
    assert found.values[-2:].tolist() == [[0.5], [1]]
    (tmp_path / "x.csv").write_text("id, x, label\n1, 2, 10\n2, 3, 9\n")
    found = read_labelled(str(tmp_path / "x.csv"))
    assert (found.names, found.labels) == (("1", "2"), ("10", "9"))


def test_a_broken_column_that_is_not_read_is_no_channel(tmp_path):
    (tmp_path / "x.csv").write_text("id,subject,label,x\na,7,1,2\nb,8,1,2\nc,9b,1,2\n")
    assert read_labelled(str(tmp_path / "x.csv"), channels=["x"]).channels == ("x",)
    with pytest.raises(DataError, match="row 3: subject is '9b', expected a number"):
        read_labelled(str(tmp_path / "x.csv"))


def test_a_column_that_is_not_there_is_named(tmp_path):
    (tmp_path / "x.csv").write_text("ids,label,x\na,1,1\n")
    with pytest.raises(ConfigError, match=r"task.id: .* has no column 'id' \(did you mean 'ids'"):
        read_labelled(str(tmp_path / "x.csv"))


@pytest.mark.parametrize("name", AEON)
def test_the_files_of_the_archive_are_read_as_aeon_reads_them(real_data, name):
    found = read_ts(str(real_data / "ucr" / f"{name}.ts"))
    assert found.labels is not None
    parts = found.values, found.lengths, " ".join(found.labels).lower().encode()
    digest = hashlib.sha256(b"".join(map(bytes, parts))).hexdigest()
    assert digest[:16] == AEON[name]
