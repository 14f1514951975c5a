"""The example of a user's model and task works in a copied folder, and as a plug-in."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "scripts" / "example"


@pytest.fixture
def example(tmp_path):
    """Return a copy of the example in the folder of the commands."""
    shutil.copytree(EXAMPLE, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.mark.parametrize("name", ["my_model.py", "my_task.py"])
def test_each_file_is_short(name):
    assert len((EXAMPLE / name).read_text().splitlines()) <= 32


def test_the_commands_of_its_readme_work(example, seqbench):
    blocks = re.findall("```bash\n(.*?)```", (example / "README.md").read_text(), re.DOTALL)
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    before_pip = commands[: next(i for i, words in enumerate(commands) if words[0] == "pip")]
    assert len(before_pip) == 5
    for words in before_pip:
        small = ["trainer.epochs=1"] if words[1] == "sweep" else []
        done = seqbench(*words[1:], *small)
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stderr}"
    assert "mine" in done.stdout
    assert "parity T=12" in done.stdout


def test_an_edited_model_is_another_model(example, seqbench):
    words = ["--config-dir=my_configs", "model=mine", "task=parity", "task.train_size=64"]
    words += ["task.eval_size=64", "trainer.epochs=1"]
    assert seqbench("train", *words).returncode == 0
    (first,) = example.glob("outputs/runs/*/*/*")
    model = example / "my_model.py"
    model.write_text(model.read_text() + "\nEDITED = True\n")
    assert seqbench("train", *words, "seed=1").returncode == 0
    table = seqbench("table", "--format", "csv").stdout
    assert len(re.findall("code=[0-9a-f]{12}", table)) == 2
    run = [first.name, "--trust=my_model", "--trust=my_task"]
    assert "my_model.RunningMean was edited since this run" in seqbench("eval", *run).stderr
    (first / "record.json").unlink()
    resumed = seqbench("train", "--resume", *run)
    assert "or the file of my_task.Parity and my_model.RunningMean was" in resumed.stderr


@pytest.mark.slow
def test_an_installed_example_is_a_plug_in(example):
    site, elsewhere = example / "site", example / "elsewhere"
    elsewhere.mkdir()

    def run(program, *words):
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(site)}
        command = [Path(sys.executable).with_name(program), *words]
        done = subprocess.run(
            command, cwd=elsewhere, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    run("python", *pip, "--target", str(site), str(example))
    models = run("seqbench", "list", "models")
    assert "running_mean plug-in: my_model.RunningMean" in " ".join(models.split())
    size = ["length=8", "train_size=64", "eval_size=64"]
    model = ["model=running_mean", "model.hidden_size=16"]
    task = ["task=parity", *(f"task.{word}" for word in size)]
    run("seqbench", "train", *model, *task, "trainer.epochs=1")
    assert len(list(elsewhere.glob("outputs/runs/parity/running_mean/*/record.json"))) == 1
    checked = run("seqbench", "check", "parity", *size)
    assert "a batch depends on step and seed only" in checked
