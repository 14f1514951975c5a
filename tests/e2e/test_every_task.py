"""Each task and each model trains by a command and leaves record, events and checkpoints."""

import itertools

import numpy as np
import pytest
import yaml

from seqbench.config.choices import CONFIG_FOLDER, choices_of
from seqbench.config.compose import Composer, compose
from seqbench.runs.events import read_events
from seqbench.runs.record import read_record
from seqbench.training import checkpoint

GENERATED = ("adding", "copy", "char_markov", "char_file", "forecast_file")
GENERATED += ("classify_file", "word_file", "sentiment_file")
REAL = ("smnist", "char_ptb", "etth1", "ucr", "spoken_digits", "jsb", "word_ptb", "nsmc")
# Of the class of a task above, with other data: the golden traces train them.
ALIKE = ("pmnist", "char_shakespeare", "etth2", "nottingham", "musedata", "piano", "char_nsmc")
FORECASTING = ("forecast_file", "etth1")
NO_FORECASTS = [task for task in GENERATED + REAL if task not in FORECASTING]
LINEAR = {"nlinear", "dlinear"}  # models for forecasting only
NOT_AT_HAND = ("char_text8", "char_enwik8")


def command(model, task, folder):
    words = ["train", f"model={model}", f"task={task}", "budget=smoke", "threads=1"]
    if task in ("char_file", "word_file"):
        text = folder / "my.txt"
        text.write_text("".join(f"{i} and {i * i}, " for i in range(2000)), encoding="utf-8")
        words.append(f"task.path={text}")
    if task == "forecast_file":
        table = folder / "my.csv"
        rows = (f"2024-{i // 28 % 12 + 1:02}-{i % 28 + 1:02},{i % 7},{i}\n" for i in range(300))
        table.write_text("".join(["day,sales,stock\n", *rows]), encoding="utf-8")
        words.append(f"task.path={table}")
    if task == "classify_file":
        x = np.random.RandomState(0).randn(60, 12, 2)
        lengths = np.arange(60) % 9 + 4
        np.savez(folder / "my.npz", x=x, y=np.arange(60) % 3, lengths=lengths)
        words.append(f"task.path={folder / 'my.npz'}")
    if task == "sentiment_file":
        rows = (f"film {i} is {'bad' if i % 2 else 'good'},{i % 2}\n" for i in range(60))
        (folder / "my.csv").write_text("".join(["text,label\n", *rows]), encoding="utf-8")
        words.append(f"task.path={folder / 'my.csv'}")
    # Some recipes have 3 million parameters.
    return [*words, "trainer.batch_size=4", "trainer.eval_every=20"]


def assert_is_trained(folder, model, task):
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


PAIRS = [
    *zip(NO_FORECASTS, itertools.cycle(sorted(set(choices_of("model")) - LINEAR)), strict=False),
    *zip(FORECASTING, sorted(LINEAR), strict=True),
]


def test_every_task_is_in_one_of_the_groups():
    assert sorted(GENERATED + REAL + ALIKE + NOT_AT_HAND) == choices_of("task")
    assert {model for _, model in PAIRS} == {*choices_of("model")}
    composer = Composer()
    trained, alike = (
        {composer.compose([f"task={task}"])["task"]["_target_"] for task in tasks}
        for tasks in (GENERATED + REAL, ALIKE)
    )
    assert alike <= trained


# The golden traces train every pair; here, each class of tasks and each model has a command.
@pytest.mark.parametrize(("task", "model"), PAIRS)
def test_every_task_and_every_model_trains(task, model, tmp_path, seqbench, request):
    data = str(request.getfixturevalue("real_data")) if task in REAL else ""
    done = seqbench(*command(model, task, tmp_path), SEQBENCH_DATA=data)
    assert done.returncode == 0, done.stderr
    assert_is_trained(tmp_path, model, task)


@pytest.mark.parametrize("task", ALIKE)
def test_a_task_that_is_like_another_finds_its_recipe(task, tmp_path):
    config = compose(command("tcn", task, tmp_path)[1:])
    assert config["choices"] == {"task": task, "model": "tcn"}
    recipe = yaml.safe_load((CONFIG_FOLDER / f"recipe/{task}_tcn.yaml").read_text("utf-8"))
    assert config["recipe"]["source"] == recipe["recipe"]["source"]
    assert config["model"].items() >= recipe["model"].items()


def test_a_linear_forecasting_model_refuses_other_tasks_in_one_line(tmp_path, seqbench):
    done = seqbench(*command("dlinear", "adding", tmp_path))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.endswith("DLinear is for forecasting tasks only, such as task=forecast_file")
