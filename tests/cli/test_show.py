import json
from dataclasses import replace

import pytest
from record_factory import make_record, write_run, write_unfinished
from typer.testing import CliRunner, Result

from seqbench.cli.main import app
from seqbench.cli.show import LOG_LINES
from seqbench.config.compose import compose
from seqbench.errors import ConfigError
from seqbench.results.summary import metrics, other_measured
from seqbench.runs import lock

FAILED = make_record("copy", "gru", seed=7, status="failed")
TWO = make_record(seed=2, model__kernel_size=7, value=0.25, source="0123456789ab")
UNFINISHED = make_record("copy", "lstm", seed=3)
IMAGES = make_record("smnist", "gru", value=0.97)
START = {"event": "started", "step": 0, "total_steps": 2000}
START |= {"metric": "cross_entropy", "direction": "min"}


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)


def events(metric, last, values) -> str:
    """Return an event log: the loss falls from 1 to 0.001, validation scores are given."""
    losses = [
        {"step": step, "split": "train", "loss": 10 ** (-3 * step / last), "lr": 0.1}
        for step in range(0, last + 1, last // 20)
    ]
    scores = [
        {"step": (i + 1) * last // len(values), "split": "valid", metric: value, "other": 9.0}
        for i, value in enumerate(values)
    ]
    return "".join(json.dumps(event) + "\n" for event in [*losses, *scores])


@pytest.fixture(scope="module")
def output_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outputs")
    write_run(folder, TWO)
    (write_run(folder, FAILED) / "log.txt").write_text(
        "begin\n" * 50 + "  File x, line 3\nKeyError\n"
    )
    log = events("accuracy", 5000, [0.3, 0.9, 0.97])
    (write_run(folder, IMAGES) / "events.jsonl").write_text(log)
    log = events("cross_entropy", 1400, [0.02, 0.01])
    unfinished = write_unfinished(folder, UNFINISHED, log + '{"st')
    (unfinished / "history.jsonl").write_text(json.dumps(START) + "\n")
    return folder


def invoke(*words: object) -> Result:
    return CliRunner().invoke(app, ["show", *map(str, words)])


def titles(result: Result) -> list[str]:
    return [line for line in result.stdout.splitlines() if " over " in line]


def test_show_tells_the_score_its_bounds_and_the_published_one(output_dir):
    result = invoke(TWO.run_id[:6], "--output-dir", output_dir)
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    for part in (
        f"run {TWO.run_id}",
        "model tcn, 70,369 parameters",
        "reached MSE 0.250 on test (lower is better)",
        "without memory MSE 0.167",
        "best possible MSE 0",
        "tcn2018 5.8e-5 not like for like: here protocol ours instead of paper",
        "model.kernel_size 7",
        "not set, at their defaults trainer.watch valid",
        "valid mse 0.250",
        "record.json",
        "older code",
        "torch 2.8.0",
        "time 2 m 03 s",
        "compiled attention_cpu, llama_cpu",
    ):
        assert part in text, part
    assert "_partial_" not in text


def test_show_finds_a_run_in_a_folder_as_table_does(output_dir, monkeypatch):
    shown = invoke(TWO.run_id[:6], "--output-dir", output_dir).stdout
    assert invoke(TWO.run_id[:6], output_dir).stdout == shown
    assert invoke(output_dir / TWO.run_id[:6]).stdout == shown
    monkeypatch.chdir(output_dir)
    for words in ([TWO.run_id[:6]], [TWO.run_id[:6], "."]):
        assert f"run {TWO.run_id}" in " ".join(invoke(*words).stdout.split())


def test_show_tells_what_went_wrong(output_dir, tmp_path):
    text = invoke(FAILED.run_id, "--output-dir", output_dir).stdout
    assert "failed: KeyError: 'x'" in text
    assert "reached" not in text
    log = text.partition("log.txt")[2]
    assert log.rstrip().endswith("KeyError")
    assert log.count("begin") == LOG_LINES - 2
    config = compose(["model=gru", "task=adding", "budget=smoke", "optimizer.lr=0.5"])
    folder = write_run(tmp_path, replace(FAILED, config=config))
    text = " ".join(invoke(folder).stdout.split())
    again = "model=gru budget=smoke protocol=ours seed=0 optimizer.lr=0.5 --retry"
    place = f"output_dir={tmp_path}"
    assert f"to retry seqbench train task=adding {again.replace('--', f'{place} --')}" in text
    assert "end of" not in text  # it has no log


def test_show_tells_how_far_an_unfinished_run_came(output_dir, monkeypatch):
    text = " ".join(invoke(UNFINISHED.run_id, "--output-dir", output_dir).stdout.split())
    assert "status unfinished" in text
    assert "last step 1,400" in text
    (folder,) = (output_dir / "runs/copy/lstm").iterdir()
    assert f"to resume seqbench train --resume {folder}" in text
    monkeypatch.chdir(output_dir)
    (output_dir / "outputs").symlink_to(output_dir)
    text = " ".join(invoke(UNFINISHED.run_id).stdout.split())
    assert f"to resume seqbench train --resume {UNFINISHED.run_id[:8]}" in text
    assert "task.length 1000" in text


def test_show_draws_the_score_on_validation_and_the_training_loss(output_dir):
    result = invoke(IMAGES.run_id, "--output-dir", output_dir)
    assert titles(result) == [
        "train loss over 5,000 steps, log axis",
        "valid accuracy % over 5,000 steps; line: 10.0 without memory",
    ]
    assert "80 %│" in result.stdout
    assert titles(invoke(TWO.run_id, "--output-dir", output_dir)) == [], "it has no events"


def test_show_tells_and_draws_how_far_a_run_is_that_is_being_trained(output_dir):
    folder = output_dir / "runs" / "copy" / "lstm" / UNFINISHED.run_id
    with lock.held(folder, "run"):
        result = invoke(UNFINISHED.run_id, "--output-dir", output_dir)
    text = " ".join(result.stdout.split())
    assert "status running, last event" in text
    assert "last step 1,400/2,000 loss 0.00100 valid cross-entropy (nats) 0.0100" in text
    assert titles(result) == [
        "train loss over 1,400 steps, log axis",
        "valid cross-entropy (nats) over 1,400 steps",
    ]


def test_a_run_that_is_not_there_is_one_line(output_dir):
    result = invoke("zzzz", "--output-dir", output_dir)
    assert isinstance(result.exception, ConfigError)
    assert "no run 'zzzz'" in str(result.exception)


def test_errors_at_steps_of_the_horizon_are_in_the_row_of_their_metric():
    steps = {"mse_step_12": 0.5, "mse_step_2": 0.25, "count_step_1": 3.0}
    record = replace(make_record(value=0.4), metrics={"test": {"mse": 0.4} | steps})
    assert metrics(record) == {
        "test mse": "0.400; at step 2: 0.250, 12: 0.500",
        "test count_step_1": "3.00",
    }


def test_sizes_and_times_have_units():
    measured = {"bytes": 152_386, "latency": 5.48e-4, "peak_memory_bytes": 400_000_000}
    shown = other_measured(replace(make_record(), measured=measured | {"threads": 2}))
    assert shown == {
        "size of weights": "152 kB",
        "latency": "0.548 ms",
        "peak memory": "381 MiB",
        "threads": "2",
    }
