"""A protocol sets what is trained, and tables keep its scores apart from the others."""

import json
from unittest.mock import patch

import pytest
import torch
from torch import nn

from seqbench.config.build import build
from seqbench.config.choices import choices_of
from seqbench.config.compose import compose
from seqbench.errors import ConfigError, Interrupted
from seqbench.experiment import run
from seqbench.experiment.build import build_model, build_task
from seqbench.results.cells import aggregate
from seqbench.runs.identity import run_id
from seqbench.runs.run import Run
from seqbench.training import checkpoint

# Tables 2 and 3 of Bai, Kolter, Koltun 2018, typed a second time.
TCN = {
    "adding": ([24] * 8, 8, 0.0, None, "Adam", 0.002),
    "smnist": ([25] * 8, 7, 0.0, None, "Adam", 0.002),
    "pmnist": ([25] * 8, 7, 0.0, None, "Adam", 0.002),
    "copy": ([10] * 8, 8, 0.05, 1.0, "RMSprop", 0.0005),
    "char_ptb": ([450] * 3, 3, 0.1, 0.15, "Adam", 0.002),
    "char_text8": ([520] * 5, 2, 0.1, 0.15, "Adam", 0.002),
}
# Table 3 leaves the optimizer of adding at T=600 and the rate of copy open: they are seqbench's.
LSTM = {
    "adding": (1, 130, 5.0, 1.0, "Adam", 0.002),
    "smnist": (1, 130, 1.0, 1.0, "RMSprop", 0.001),
    "pmnist": (1, 130, 1.0, 10.0, "RMSprop", 0.001),
    "copy": (1, 50, 1.0, None, "RMSprop", 0.0005),
}
SMALL = [
    *("task=adding", "task.length=12", "task.train_size=40", "task.eval_size=16", "threads=1"),
    *("model=tcn", "model.channels=[4]", "model.kernel_size=3", "device=cpu"),
    *("trainer.epochs=4", "trainer.batch_size=8"),
]


def small(folder, *words):
    return compose([*SMALL, *words, f"output_dir={folder}"])


@pytest.mark.parametrize("task", TCN)
def test_protocol_paper_trains_a_tcn_as_printed(task):
    config = compose([f"task={task}", "model=tcn", "protocol=paper"])
    model, trainer, optimizer = config["model"], config["trainer"], config["optimizer"]
    found = (
        *(model["channels"], model["kernel_size"], model["dropout"], trainer["clip"]),
        *(optimizer["_target_"].removeprefix("torch.optim."), optimizer["lr"]),
    )
    assert found == TCN[task]
    assert model["dropout_kind"] == "channel"


@pytest.mark.parametrize("task", LSTM)
def test_protocol_paper_trains_an_lstm_as_printed(task):
    config = compose([f"task={task}", "model=lstm", "protocol=paper"])
    model, optimizer = config["model"], config["optimizer"]
    found = (
        *(model["num_layers"], model["hidden_size"], config["trainer"]["clip"]),
        *(model["forget_bias"], optimizer["_target_"].removeprefix("torch.optim.")),
        optimizer["lr"],
    )
    assert found == LSTM[task]
    assert model.get("chrono") is None


@pytest.mark.parametrize("model", ["tcn", "lstm", "gru", "rnn", "llama"])
@pytest.mark.parametrize("task", TCN)
def test_no_schedule_of_ours_remains_in_protocol_paper(task, model):
    config = compose([f"task={task}", f"model={model}", "protocol=paper"])
    schedule = build("schedule", config)
    assert {schedule.factor(step, 10) for step in range(10)} == {1.0}
    assert config["trainer"]["watch"] == "test"


@pytest.mark.parametrize(("task", "rate"), [("etth1", 0.005), ("etth2", 0.05)])
@pytest.mark.parametrize("model", ["nlinear", "dlinear"])
def test_the_code_of_linear_forecasts_halves_the_rate_after_each_epoch_but_the_first(
    task, rate, model
):
    config = compose([f"task={task}", f"model={model}", "protocol=code"])
    factors = [build("schedule", config).factor(epoch, 10) for epoch in range(10)]
    assert factors == [1.0, *(0.5**epoch for epoch in range(9))]
    assert (config["optimizer"]["lr"], config["trainer"]["patience"]) == (rate, 3)
    node = config["task"]
    assert (node["normalize"], node["calendar"], node["drop_last"]) == ("none", False, True)


def test_the_code_lets_the_rate_fall_after_half_of_the_epochs_on_mnist():
    schedule = build("schedule", compose(["task=smnist", "protocol=code"]))
    assert [schedule.factor(step, 20) for step in (0, 9, 10, 19)] == [1, 1, 0.1, 0.1]


def test_the_code_of_nanogpt_draws_windows_at_random():
    words = ["model=llama", "task=char_shakespeare", "protocol=code"]
    assert compose(words)["task"]["shuffle"] is True
    assert compose([*words, "task.shuffle=false"])["task"]["shuffle"] is False


@pytest.mark.parametrize("words", [["model=lstm"], ["model=tcn", "task=char_ptb"]])
def test_what_there_is_no_code_for_is_refused(words):
    with pytest.raises(ConfigError, match="protocol"):
        compose([*words, "protocol=code"])


def test_the_command_line_goes_before_a_protocol():
    chosen = compose(["protocol=paper", "optimizer=sgd", "schedule=cosine"])
    assert chosen["optimizer"] == compose(["recipe=none", "optimizer=sgd"])["optimizer"]
    assert chosen["schedule"] == compose(["recipe=none", "schedule=cosine"])["schedule"]
    assert compose(["protocol=paper", "optimizer.lr=0.5"])["optimizer"]["lr"] == 0.5


def test_each_file_of_a_protocol_is_of_a_pair_that_exists():
    tasks, models = choices_of("task"), choices_of("model")
    of_tasks = {f"{task}_{p}" for task in tasks for p in choices_of("protocol")}
    assert choices_of("protocol_for")
    assert set(choices_of("protocol_for")) <= of_tasks
    of_pairs = {f"{t}_{m}_{p}" for t in tasks for m in models for p in choices_of("protocol")}
    assert choices_of("protocol_for/pair")
    assert set(choices_of("protocol_for/pair")) <= of_pairs


def test_no_protocol_shares_an_id_with_another():
    ids = {run_id(compose(["task=copy", f"protocol={p}"])) for p in choices_of("protocol")}
    assert len(ids) == len(choices_of("protocol")) == 3


def test_the_options_of_protocols_leave_the_ids_of_ours_as_they_are():
    plain = compose(["task=adding"])
    named = compose(["task=adding", "task.shuffle=true", "trainer.watch=valid"])
    assert run_id(named) == run_id(plain)
    assert run_id(compose(["task=smnist", "task.valid_size=5000"])) == run_id(
        compose(["task=smnist"])
    )


@pytest.mark.parametrize("task", ["adding", "copy"])
def test_without_shuffling_every_epoch_has_the_order_of_the_data(task):
    words = [f"task={task}", "task.length=12", "task.train_size=40", "trainer.batch_size=8"]

    def epochs(*more):
        config = compose([*words, *more])
        made = build_task(config, build("trainer", config))
        steps = made.steps_per_epoch
        batches = [made.train_batch(step).targets for step in range(2 * steps)]
        return made, torch.cat(batches[:steps]), torch.cat(batches[steps:])

    made, first, second = epochs("task.shuffle=false")
    assert torch.equal(first, made.splits["train"][1])
    assert torch.equal(first, second)
    made, first, second = epochs()
    assert not torch.equal(first, second)
    assert torch.equal(first.sort(0).values[:, 0], second.sort(0).values[:, 0])


def test_without_validation_all_images_are_trained_on(real_data):
    words = ["task=smnist", "model=tcn", f"data_dir={real_data}"]
    for protocol, sizes in (
        ("paper", {"train": 60_000, "test": 10_000}),
        ("ours", {"train": 55_000, "valid": 5_000, "test": 10_000}),
    ):
        config = compose([*words, f"protocol={protocol}"])
        made = build_task(config, build("trainer", config))
        assert {split: len(labels) for split, (_, labels) in made.splits.items()} == sizes


def test_a_run_that_needs_validation_and_has_none_says_so(real_data, tmp_path):
    words = ["task=smnist", "task.valid_size=0", "task.train_size=32", "budget=smoke"]
    config = compose([*words, f"data_dir={real_data}", f"output_dir={tmp_path}"])
    with pytest.raises(ConfigError, match="no valid split: set trainer"):
        run(config)


def test_the_code_clips_nothing_on_copy():
    """Clipping between zero_grad and backward, as released, is the same as no clipping."""
    words = ["task=copy", "task.length=10", "task.train_size=96", "protocol=code"]
    config = compose(words)
    assert config["trainer"]["clip"] is None
    trainer = build("trainer", config)
    task = build_task(config, trainer)

    def stepped(clip):
        model = build_model(config, task.spec)
        optimizer = build("optimizer", config, model.parameters())
        for step in range(3):
            batch = task.train_batch(step)
            optimizer.zero_grad()
            loss = task.loss(model(batch.inputs)[0], batch)
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            loss.backward()
            optimizer.step()
        return list(model.parameters())

    for one, other in zip(stepped(1e-6), stepped(None), strict=True):
        assert torch.equal(one, other)


def test_a_watched_test_split_scores_the_mean_of_the_last_three_epochs(tmp_path):
    config = small(tmp_path, "protocol=paper")
    record = run(config)
    lines = Run.of(config).events_path.read_text().splitlines()
    events = [event for event in map(json.loads, lines) if event["split"] != "train"]
    assert [(event["step"], event["split"]) for event in events] == [
        (step, "test") for step in (5, 10, 15, 20)
    ]
    mean = sum(event["mse"] for event in events[1:]) / 3
    assert len({event["mse"] for event in events}) == 4
    assert record.score is not None
    assert (record.score.split, record.score.value) == ("test_mean", pytest.approx(mean))
    assert record.metrics["test"]["mse"] == events[-1]["mse"]
    assert record.notes["score"] == "mean of the last results on test, 3 at most"
    assert "valid" not in record.metrics
    _, facts = checkpoint.load(Run.of(config).checkpoints / checkpoint.BEST)
    assert facts["step"] == 20, "nothing was chosen"


def test_a_watched_run_that_is_cut_off_ends_as_if_it_had_not_been(tmp_path):
    whole = run(small(tmp_path / "whole", "protocol=paper"))
    config = small(tmp_path / "cut", "protocol=paper")
    asked_to_stop = iter([0] * 11 + [2])
    with patch("seqbench.experiment.single.signals") as signals:
        signals.return_value.__enter__.return_value = lambda: next(asked_to_stop)
        signals.return_value.__exit__.return_value = False
        with pytest.raises(Interrupted):
            run(config)
    assert run(config).metrics == whole.metrics


def test_scores_of_protocols_never_stand_in_one_column(tmp_path):
    watched = ["protocol=ours", "trainer.watch=test"]
    kinds = (["protocol=ours"], ["protocol=paper"], ["protocol=code"], watched)
    cells = aggregate(run(small(tmp_path, *words)) for words in kinds)
    assert len({cell.column for cell in cells}) == len(kinds)
    assert {cell.column.split for cell in cells} == {"test", "test_mean"}
