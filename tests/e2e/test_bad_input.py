"""A wrong command or wrong data is an error of one line with its exit code, and writes nothing."""

import shutil
import sys

import pytest

from seqbench.cli.main import main
from seqbench.runs.record import read_record

SMALL = ("budget=smoke", "threads=1")


@pytest.fixture
def fails(tmp_path, environment, monkeypatch, capfd):
    """Run a command that fails in this process; return its exit code and its one line."""
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    def fail(*words):
        monkeypatch.setattr(sys, "argv", ["seqbench", *words])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capfd.readouterr()
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1, err
        assert not (tmp_path / "outputs").exists()
        return end.value.code, err.removeprefix("error: ").strip()

    return fail


@pytest.mark.parametrize(
    ("words", "said"),
    [
        # Unknown names, with the nearest valid one.
        ("model=tcm", "no model named 'tcm' (did you mean 'tcn'?)"),
        ("task=addin", "(did you mean 'adding'?)"),
        ("budget=smok", "(did you mean 'smoke'?)"),
        ("optimizer=adm", "(did you mean 'adam'?)"),
        ("sed=1", "no key 'sed' (did you mean 'seed'?)"),
        ("traine.steps=3", "(did you mean 'trainer'?)"),
        ("trainer.batchsize=3", "(did you mean 'trainer.batch_size'?)"),
        ("model=lstm model.num_layer=2", "(did you mean 'model.num_layers'?)"),
        ("optimizer.lrr=1", "(did you mean 'optimizer.lr'?)"),
        ("lr=1", "no key 'lr' (did you mean 'optimizer.lr'?)"),
        ("task=etth1 task.seq_len=96", "no key 'task.seq_len' (did you mean 'task.length'?)"),
        ("task=etth1 pred_len=96", "no key 'pred_len' (did you mean 'task.horizon'?)"),
        ("task=etth1 task.h=96", "no key 'task.h' (did you mean 'task.horizon'?)"),
        ("task=ucr task.pooling=mean", "no key 'task.pooling' (did you mean 'task.pool'?)"),
        ("task=ucr task.dataset=gunpoint", "no dataset 'gunpoint' is known (did you mean 'GunPo"),
        ("task=classify_file", "no file is given: set task.path=my.npz, my.ts or my.csv"),
        ("task=classify_file task.target=a", "no key 'task.target' (did you mean 'task.label'?)"),
        ("--resume nosuch", "no run 'nosuch' in outputs"),
        # Values of the wrong type.
        ("seed=x", "seed must be int, not 'x'"),
        ("seed=true", "seed must be int, not True"),
        ("model.kernel_size=three", "model.kernel_size must be int, not 'three'"),
        ("trainer.steps=1.5", "trainer.steps must be int or null, not 1.5"),
        ("trainer.precision=fp8", "must be one of fp32, bf16, fp16, not 'fp8'"),
        ("device=3", "device must be str, not 3"),
        # Values out of range.
        ("seed=-1", "not -1"),
        ("threads=0", "threads must be 1 to 1024"),
        ("seeds=0", "seeds= takes a number from 1 to 256, not '0'"),
        ("seeds=1,2", "seeds= takes a number from 1 to 256, not '1,2'"),
        (f"seeds={'9' * 5000}", "seeds= takes a number from 1 to 256"),
        ("-m seeds=2", "a sweep takes seed=0,1,2, not seeds=2"),
        ("model.kernel_size=1", "model.kernel_size must be at least 2, not 1"),
        ("model.channels=[]", "model.channels must be positive widths"),
        ("model=lstm model.hidden_size=0", "model.hidden_size must be at least 1, not 0"),
        ("model=lstm model.tied=true", "model.tied needs a task whose input is tokens"),
        ("trainer.steps=0", "trainer.steps must be positive, not 0"),
        ("trainer.steps=9 trainer.epochs=1", "leave the other null"),
        ("trainer.accumulate=3", "cannot be cut into trainer.accumulate=3 equal parts"),
        ("optimizer.lr=-1", "learning rate"),
        ("device=tpu", "device must be auto, cpu, cuda or cuda:N, not 'tpu'"),
        ("device=cuda:99", "device=cuda:99, but torch sees"),
        ("task.length=1", "task.length must be at least 2"),
        ("task.eval_size=0", "the valid split is empty"),
        ("seed=${model.nosuch}", "'model.nosuch' not found"),
        # Batches larger than the data.
        ("trainer.batch_size=300", "more than the task's 256 training sequences"),
        ("task=char_markov trainer.batch_size=999", "lower trainer.batch_size or task.length"),
        # Malformed overrides.
        ("model=", "model needs a choice"),
        ("model", "'model'"),
        ("model=tcn,lstm", "one model, not 'tcn,lstm'"),
        ("model.channels=[1,2", "[1,2"),
        ("task=char_file", "set task.path=my.txt"),
    ],
)
def test_a_wrong_command_is_code_2(fails, words, said):
    options = () if "--resume" in words else SMALL
    # The mistake comes last: the later of two values counts.
    code, line = fails("train", *options, *words.split())
    assert code == 2
    assert said in line


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        (None, 3, "my.txt is not there"),
        (b"", 3, "my.txt is empty"),
        (b"short\n", 3, "6 characters, under the 100 that are needed"),
        (bytes(range(256)) * 50, 3, "my.txt is not UTF-8 text: byte 0x80 at offset 128"),
        (b"abc\xffde" * 50, 3, "my.txt is not UTF-8 text: byte 0xff at offset 3"),
        (b"PK\x03\x04\x00" * 50, 3, "my.txt is not text: byte 0x00 at offset 4"),
        (b"too few for a batch\n" * 20, 2, "lower trainer.batch_size or task.length"),
    ],
)
def test_an_unusable_text_is_an_error(fails, tmp_path, content, code, said):
    if content is not None:
        (tmp_path / "my.txt").write_bytes(content)
    got, line = fails("train", "task=char_file", "task.path=my.txt", *SMALL)
    assert got == code
    assert said in line


def test_a_folder_instead_of_a_text_is_an_error(fails, tmp_path):
    (tmp_path / "my.txt").mkdir()
    assert fails("train", "task=char_file", "task.path=my.txt") == (3, "my.txt is not a file")


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        (None, 3, "my.csv is not there"),
        ("", 3, "my.csv is empty"),
        ("day\n" + "2024-01-01\n" * 3, 3, "has no column of numbers beside the time: day"),
        ("a,b\n" + "1,2\n" * 9 + "1,x\n" + "3,4\n" * 9, 3, "row 10: b is 'x', expected a number"),
        ("a,b\n1,2\n" + ",2\n" * 9, 3, "row 2: a is missing; task.missing=mask leaves"),
        ("t,b\n2024-02-01,2\n2024-01-01,4\n", 3, "row 2 (2024-01-01): the time is earlier than"),
        ("a,b\n" + "1,2\n" * 20, 3, "the train split has 14 rows, expected at least 32"),
        ("b,d\n" + "1,2\n" * 20, 2, "task.target: "),
    ],
)
def test_a_table_that_cannot_be_used_is_an_error(fails, tmp_path, content, code, said):
    if content is not None:
        (tmp_path / "my.csv").write_text(content)
    target = "task.target=c" if code == 2 else "task.target=all"
    got, line = fails("train", "task=forecast_file", "task.path=my.csv", target, *SMALL)
    assert got == code
    assert said in line


@pytest.mark.parametrize(
    ("name", "content", "code", "said"),
    [
        ("my.npz", "", 3, "my.npz is empty"),
        ("my.ts", "@data\n1,2:a\n1,x:a\n", 3, "line 3: value 2 is 'x', expected a number, or ?"),
        ("my.ts", "1,2:a\n", 3, "my.ts has no line @data"),
        ("my.ts", "@data\n" + "1,?:a\n2,1:b\n" * 9, 3, "step 2: channel_1 is missing; task.missin"),
        ("my.ts", "@data\n1,2:a\n1,3:b\n", 3, "class 'a' has 1 examples, expected at least 3"),
        ("my.csv", "id,label,x\n1,a,1\n1,b,1\n", 3, "row 2: label is 'b', and the first row of"),
        ("my.csv", "series,label,x\n1,a,1\n", 2, "task.id: "),
    ],
)
def test_sequences_that_cannot_be_used_are_an_error(fails, tmp_path, name, content, code, said):
    (tmp_path / name).write_text(content)
    got, line = fails("train", "task=classify_file", f"task.path={name}", *SMALL)
    assert got == code
    assert said in line


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import nosuch", "cannot import my_model.Mine: No module named 'nosuch'"),
        ("class Mine:\n    def __init__(self, spec):\n        raise ValueError('no')", "model: no"),
        ("class Other: ...", "my_model has no Mine (there are: Other)"),
        ("class Mine:\n    def __init__(self, spec, width: int): ...", "'model.width' is needed"),
    ],
)
def test_a_custom_model_that_cannot_be_built_is_an_error(fails, tmp_path, source, said):
    (tmp_path / "my_model.py").write_text(source)
    (tmp_path / "my_configs" / "model").mkdir(parents=True)
    (tmp_path / "my_configs" / "model" / "mine.yaml").write_text("_target_: my_model.Mine\n")
    sys.modules.pop("my_model", None)
    code, line = fails("train", "--config-dir", "my_configs", "model=mine", *SMALL)
    assert code == 2
    assert said in line


def test_characters_outside_the_vocabulary_are_counted(tmp_path, seqbench):
    # 90 / 5 / 5 %: the last 1,000 of 10,000 characters are valid and test.
    text = "abcd " * 1800 + ("abcé " * 60 + "abcd " * 40) + ("abcé世 " * 50 + "abcd " * 40)
    (tmp_path / "my.txt").write_text(text, encoding="utf-8")
    done = seqbench("train", "model=lstm", "task=char_file", "task.path=my.txt", *SMALL)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("outputs/runs/*/*/*/record.json")
    notes = read_record(path).notes
    assert (notes["unknown_valid"], notes["unknown_test"]) == (60, 100)
    assert "note: unknown valid 60" in done.stderr
    assert "note: unknown test 100" in done.stderr


@pytest.mark.parametrize(
    ("task", "file"),
    [
        ("char_ptb", "ptb/ptb.train.txt"),
        ("char_text8", "text8/text8"),
        ("char_enwik8", "enwik8/enwik8"),
    ],
)
def test_a_missing_dataset_is_code_3(fails, tmp_path, task, file):
    code, line = fails("train", f"task={task}", *SMALL)
    assert code == 3
    assert line.startswith(f"{file.split('/')[1]} of {task.removeprefix('char_')} is missing")
    assert "put it " in line
    assert f" at {tmp_path / 'data' / file}" in line


def test_a_corrupted_dataset_is_moved_aside(tmp_path, seqbench, real_data):
    folder = tmp_path / "data" / "tinyshakespeare"
    shutil.copytree(real_data / "tinyshakespeare", folder)
    path = folder / "input.txt"
    path.write_bytes(path.read_bytes().replace(b"First Citizen", b"First Critter", 1))
    done = seqbench("train", "task=char_shakespeare", *SMALL)
    assert done.returncode == 3
    moved, error = done.stderr.splitlines()
    assert "has the wrong SHA-256: moved aside to input.txt.bad-" in moved
    assert error.startswith("error: input.txt of shakespeare is missing")
    assert [p.name[:14] for p in folder.glob("input*")] == ["input.txt.bad-"]
    assert not (tmp_path / "outputs").exists()


def test_an_output_folder_that_cannot_be_written_is_code_1(tmp_path, seqbench):
    (tmp_path / "file").write_text("not a folder")
    done = seqbench("train", "output_dir=file/outputs", *SMALL)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Not a directory: file/outputs" in done.stderr
    assert done.stderr.count("\n") == 1
    assert (tmp_path / "file").read_text() == "not a folder"


def test_the_traceback_is_shown_on_request(installed):
    done = installed("train", "model=tcm", SEQBENCH_TRACEBACK="1")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):")
    assert "ConfigError: no model named 'tcm' (did you mean 'tcn'?)" in done.stderr


@pytest.mark.parametrize("words", [(), ("--nosuch",), ("trian",), ("list", "--nosuch")])
def test_an_unknown_command_is_code_2_and_shows_the_usage(installed, words):
    done = installed(*words)
    assert done.returncode == 2
    assert "Usage: seqbench" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
