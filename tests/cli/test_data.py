import gzip

import numpy as np
import pytest
from typer.testing import CliRunner

from seqbench.cli.data import app
from seqbench.datasets.catalog import DATASETS
from seqbench.datasets.table import read_table
from seqbench.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.delenv("SEQBENCH_DATA", raising=False)
    monkeypatch.setenv("SEQBENCH_OFFLINE", "1")


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_path_prints_the_folder_and_nothing_else(tmp_path, monkeypatch):
    assert call("path", "--data-dir", tmp_path).stdout == f"{tmp_path}\n"
    monkeypatch.setenv("SEQBENCH_DATA", str(tmp_path))
    result = call("path", "shakespeare")
    assert result.stdout == f"{tmp_path / 'tinyshakespeare'}\n"
    assert result.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_verify_says_ok_missing_or_bad_for_each_file(tmp_path):
    (tmp_path / "ptb").mkdir()
    (tmp_path / "ptb" / "ptb.valid.txt").write_text("not it")
    result = call("verify", "ptb", "shakespeare", "--data-dir", tmp_path)
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["missing", str(tmp_path / "ptb" / "ptb.train.txt")],
        ["bad", str(tmp_path / "ptb" / "ptb.valid.txt")],
        ["missing", str(tmp_path / "ptb" / "ptb.test.txt")],
        ["missing", str(tmp_path / "tinyshakespeare" / "input.txt")],
    ]
    assert isinstance(result.exception, DataError)
    assert "seqbench data fetch ptb shakespeare" in str(result.exception)
    # To verify is to look only.
    assert (tmp_path / "ptb" / "ptb.valid.txt").read_text() == "not it"


def test_verify_without_a_name_looks_at_every_dataset(tmp_path):
    lines = call("verify", "--data-dir", tmp_path).stdout.splitlines()
    assert len(lines) == sum(len(dataset.files) for dataset in DATASETS.values())


def test_verify_and_fetch_are_content_with_the_real_files(real_data):
    verified = call("verify", "mnist", "ptb", "--data-dir", real_data)
    assert verified.exit_code == 0
    assert [line.split()[0] for line in verified.stdout.splitlines()] == ["ok"] * 7
    fetched = call("fetch", "mnist", "--data-dir", real_data)
    assert fetched.exit_code == 0
    assert fetched.stdout == ""
    assert fetched.stderr == (
        f"mnist: ready in {real_data / 'mnist'}; terms: {DATASETS['mnist'].licence}\n"
    )


def test_fetch_goes_on_with_the_rest_and_names_what_failed(tmp_path, real_data):
    (tmp_path / "ptb").symlink_to(real_data / "ptb")
    result = call("fetch", "--all", "--data-dir", tmp_path)
    assert "ptb: ready" in result.stderr
    assert isinstance(result.exception, DataError)
    assert "\n" not in str(result.exception)
    for path in ("mnist/train-images-idx3-ubyte.gz", "text8/text8", "tinyshakespeare/input.txt"):
        assert str(tmp_path / path) in str(result.exception)


@pytest.mark.parametrize("command", ["fetch", "verify", "path"])
def test_a_mistyped_name_is_a_mistake_in_the_command(command, tmp_path):
    result = call(command, "mnits", "--data-dir", tmp_path)
    assert isinstance(result.exception, ConfigError)
    assert "did you mean 'mnist'" in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_fetch_wants_a_name():
    result = call("fetch")
    assert isinstance(result.exception, ConfigError)
    assert "--all" in str(result.exception)


def test_describe_says_what_training_on_a_table_would_use(tmp_path):
    rows = [f"2024-{i // 28 + 1:02}-{i % 28 + 1:02},{i % 7},{i},x" for i in range(336)]
    (tmp_path / "my.csv").write_text("\n".join(["day,sales,stock,note", *rows]))
    words = ["task.target=sales", "task.length=28", "task.horizon=7"]
    result = call("describe", tmp_path / "my.csv", *words)
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["sales", "target", "0", "3.00", "2.00", "0", "6.00"] in lines
    assert ["note", "not", "read"] in lines
    assert ["gaps", "11"] in lines  # from the 28th to the next month
    assert ["test", "windows", "61"] in lines
    assert "seasonal naive  MSE 0" in result.stdout
    rows[5] = "2024-01-06,,5,x"
    (tmp_path / "my.csv").write_text("\n".join(["day,sales,stock,note", *rows]))
    result = call("describe", tmp_path / "my.csv", *words)
    assert "train with task.missing=mask" in result.stdout
    assert "sales   target          1" in result.stdout
    wrong = call("describe", tmp_path / "my.csv", "task.target=sale")
    assert isinstance(wrong.exception, ConfigError)
    assert "did you mean 'sales'?" in str(wrong.exception)


def test_describe_reads_missing_values_of_a_test_file_alone(tmp_path):
    x = np.arange(240.0).reshape(20, 12)
    np.savez(tmp_path / "my.npz", x=x, y=np.arange(20) % 2)
    x[0, 0] = np.nan
    np.savez(tmp_path / "test.npz", x=x, y=np.arange(20) % 2)
    words = ["describe", tmp_path / "my.npz", f"task.test_path={tmp_path / 'test.npz'}"]
    assert "task.missing=mask gives" in str(call(*words).exception)
    result = call(*words, "task.missing=mask")
    assert result.exit_code == 0, result.output
    assert "majority class" in result.stdout


def test_describe_names_the_task_of_labelled_sequences(tmp_path):
    rows = [f"{i // 50},{i % 7},{'ab'[i // 50 % 2]}" for i in range(600)]
    (tmp_path / "my.csv").write_text("\n".join(["id,x,label", *rows]))
    hint = "add task=classify_file"
    assert hint in call("describe", tmp_path / "my.csv").stdout
    assert hint not in call("describe", tmp_path / "my.csv", "task=classify_file").stdout


def test_describe_shows_the_classes_and_characters_of_labelled_texts(tmp_path):
    rows = [f"{'가나' * (i % 3 + 1)},{'ab'[i % 4 == 0]}" for i in range(40)]
    (tmp_path / "my.csv").write_text("\n".join(["review,label", *rows]), encoding="utf-8")
    words = ["task=sentiment_file", "task.text=review", "task.length=5"]
    shown = call("describe", tmp_path / "my.csv", *words).stdout
    lines = [line.split() for line in shown.splitlines()]
    assert ["a", "18", "6", "6"] in lines
    assert ["b", "6", "2", "2"] in lines
    assert ["lengths", "2", "to", "5,", "median", "4"] in lines
    assert ["characters", "3"] in lines  # with the unknown one
    assert "majority class  accuracy 75.0 %" in shown


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("GunPoint", None, "takes a file, and GunPoint is a dataset: see seqbench list datasets"),
        ("my.npy", b"\x93NUMPY\x01\0", "my.npy ends with .npy and is no text, expected .csv, .tsv"),
        (
            "my",
            bytes(9),
            "my is no text, expected .csv, .tsv, .txt or .parquet; task=classify_file",
        ),
    ],
)
def test_describe_says_which_files_it_takes(tmp_path, monkeypatch, name, content, said):
    monkeypatch.chdir(tmp_path)
    if content:
        (tmp_path / name).write_bytes(content)
    assert said in str(call("describe", name).exception)


def test_a_table_of_another_kind_is_refused_with_the_task_that_reads_it(tmp_path):
    np.savez(tmp_path / "my.npz", x=np.ones((2, 3)))
    with pytest.raises(
        DataError, match=r"my.npz ends with .npz, expected .csv.*task=classify_file"
    ):
        read_table(str(tmp_path / "my.npz"))
    with gzip.open(tmp_path / "my.csv.gz", "wt") as file:
        file.write("x\n1\n2\n")
    assert read_table(str(tmp_path / "my.csv.gz")).values.ravel().tolist() == [1, 2]
