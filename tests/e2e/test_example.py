"""The example of a model and a task of one's own works wherever it is copied to, or installed."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "scripts" / "example"
PROGRAM = str(Path(sys.executable).with_name("seqbench"))


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(EXAMPLE, tmp_path / "copy")
    return tmp_path / "copy"


def run(words, folder, **environment):
    done = subprocess.run(
        words,
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("name", ["my_model.py", "my_task.py"])
def test_each_file_is_short(name):
    assert len((EXAMPLE / name).read_text().splitlines()) <= 32


def test_its_commands_work(copy):
    text = (copy / "README.md").read_text()
    blocks = re.findall("```bash\n(.*?)```", text, re.DOTALL)
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    alone = commands[: next(i for i, words in enumerate(commands) if words[0] == "pip")]
    assert len(alone) == 5
    for words in alone:
        small = ["trainer.epochs=1"] if words[1] == "sweep" else []
        out = run([PROGRAM, *words[1:], *small], copy)
    assert "mine" in out
    assert "parity T=12" in out


def test_an_edited_model_is_another_one(copy):
    words = ["--config-dir=my_configs", "model=mine", "task=parity", "task.train_size=64"]
    words += ["task.eval_size=64", "trainer.epochs=1"]
    run([PROGRAM, "train", *words], copy)
    (first,) = copy.glob("outputs/runs/*/*/*")
    model = copy / "my_model.py"
    model.write_text(model.read_text() + "\nEDITED = True\n")
    run([PROGRAM, "train", *words, "seed=1"], copy)
    table = run([PROGRAM, "table", "--format", "csv"], copy)
    assert len(re.findall("code=[0-9a-f]{12}", table)) == 2
    trust = ["--trust=my_model", "--trust=my_task"]

    def said(*words):
        return subprocess.run(
            [PROGRAM, *words, first.name, *trust], cwd=copy, capture_output=True, text=True
        ).stderr

    assert "my_model.RunningMean was edited since this run" in said("eval")
    (first / "record.json").unlink()
    assert "or the file of my_task.Parity and my_model.RunningMean was" in said("train", "--resume")


def test_installed_it_is_a_plug_in(copy, tmp_path):
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    run([*pip, "--target", str(tmp_path / "site"), "."], copy)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def seqbench(*words):
        return run([PROGRAM, *words], elsewhere, PYTHONPATH=str(tmp_path / "site"))

    assert "running_mean  plug-in: my_model.RunningMean" in seqbench("list", "models")
    assert "parity" in seqbench("list", "tasks")
    size = ["length=8", "train_size=64", "eval_size=64"]
    model = ["model=running_mean", "model.hidden_size=16"]
    task = ["task=parity", *(f"task.{word}" for word in size)]
    seqbench("sweep", *model, *task, "seed=0,1", "trainer.epochs=1")
    assert len(list(elsewhere.glob("outputs/runs/parity/running_mean/*/record.json"))) == 2
    assert "draws a batch from step and seed alone" in seqbench("check", "parity", *size)
