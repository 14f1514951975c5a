"""Every model trains on every task: a record, an evaluation and a checkpoint of each."""

import json
import subprocess
import sys

import pytest

from seqbench.config.choices import choices_of
from seqbench.runs.events import read_events
from seqbench.runs.record import read_record
from seqbench.training import checkpoint

MODELS = ("tcn", "lstm", "gru", "rnn", "llama")
GENERATED = ("adding", "copy", "char_markov", "char_file")
REAL = ("smnist", "pmnist", "char_ptb", "char_shakespeare")
NOT_AT_HAND = ("char_text8", "char_enwik8")
# Many commands in one process, since importing torch takes longer than most of these trainings.
DRIVER = """
import json, sys
from seqbench.cli.main import main
codes = []
for words in json.load(sys.stdin):
    sys.argv = ["seqbench", *words]
    try:
        main()
    except SystemExit as end:
        codes.append(end.code)
print(json.dumps(codes))
"""


def command(model, task, folder):
    words = ["train", f"model={model}", f"task={task}", "budget=smoke", "threads=1"]
    if task == "char_file":
        text = folder / "my.txt"
        text.write_text("".join(f"{i} and {i * i}, " for i in range(2000)), encoding="utf-8")
        words.append(f"task.path={text}")
    return words


def train(model, tasks, folder, environment):
    """The exit codes of training one model on each task, and what was said."""
    # Recipes of 3 million parameters: batches of four, and one evaluation.
    small = ["trainer.batch_size=4", "trainer.eval_every=20"]
    commands = [[*command(model, task, folder), *small] for task in tasks]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(commands),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
    )
    # What commands say goes to stderr: stdout holds the driver's line alone.
    return json.loads(done.stdout), done.stderr


def is_trained(folder, model, task):
    """Hold what a run left behind to what it should."""
    (run,) = (folder / "outputs" / "runs" / task / model).iterdir()
    record = read_record(run / "record.json")
    assert (record.status, record.model, record.task) == ("completed", model, task)
    assert record.steps >= 20
    assert record.score.value is not None
    assert record.score.value == record.metrics["test"][record.score.metric]
    events = read_events(run / "events.jsonl")
    assert any(event["split"] == "valid" for event in events)
    assert sum(event["split"] == "train" for event in events) >= 2
    last, _ = checkpoint.load(run / "checkpoints" / "last.safetensors")
    best, _ = checkpoint.load(run / "checkpoints" / "best.safetensors")
    assert {name for name in last if name.startswith("model.")} == set(best)
    return True


def test_the_pairs_are_all_there_are():
    assert sorted(MODELS) == choices_of("model")
    assert sorted(GENERATED + REAL + NOT_AT_HAND) == choices_of("task")


@pytest.mark.parametrize("model", MODELS)
def test_a_model_trains_on_the_tasks_that_are_made_on_the_spot(model, tmp_path, environment):
    tasks = GENERATED + NOT_AT_HAND
    codes, said = train(model, tasks, tmp_path, environment)
    assert codes == [0, 0, 0, 0, 3, 3], said
    assert all(is_trained(tmp_path, model, task) for task in GENERATED)
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert [f"{name} is missing" in said for name in ("text8", "enwik8")], said
    assert len(errors) == 2
    assert not any((tmp_path / "outputs" / "runs" / task).exists() for task in NOT_AT_HAND)


@pytest.mark.parametrize("model", MODELS)
def test_a_model_trains_on_the_tasks_with_real_data(model, tmp_path, environment, real_data):
    codes, said = train(model, REAL, tmp_path, environment | {"SEQBENCH_DATA": str(real_data)})
    assert codes == [0, 0, 0, 0], said
    assert all(is_trained(tmp_path, model, task) for task in REAL)


@pytest.mark.parametrize(
    ("model", "task"), [("lstm", "adding"), ("gru", "char_markov"), ("llama", "char_file")]
)
def test_the_installed_command_trains(model, task, tmp_path, seqbench):
    done = seqbench(*command(model, task, tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert is_trained(tmp_path, model, task)
    assert "completed: test " in done.stderr
