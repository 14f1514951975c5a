import json
import re
from dataclasses import replace

import pytest
from record_factory import make_record, write_run, write_unfinished
from typer.testing import CliRunner, Result

from seqbench.cli.main import app
from seqbench.errors import ConfigError

ONE, TWO = make_record(seed=1), make_record(seed=2, model__kernel_size=7, value=0.25)
UNFINISHED = make_record("copy", "lstm", seed=3)
FAST = make_record(seed=4)
FAST = replace(FAST, measured=FAST.measured | {"seconds": 50.0, "threads": 2, "compiled": []})


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def output_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outputs")
    for record, values in ((ONE, (0.2, 1e-4)), (TWO, (0.3, 0.25)), (FAST, ())):
        log = "".join(
            json.dumps({"step": 2500 * i, "split": "valid", "mse": value}) + "\n"
            for i, value in enumerate(values, start=1)
        )
        (write_run(folder, record) / "events.jsonl").write_text(log)
    write_unfinished(folder, UNFINISHED, "")
    return folder


def invoke(*words: object) -> Result:
    return CliRunner().invoke(app, ["compare", *map(str, words)])


def test_compare_shows_what_differs_and_the_metrics(output_dir):
    result = invoke(ONE.run_id, TWO.run_id, "--output-dir", output_dir)
    rows = {
        line.split()[0]: line.split()[1:] for line in result.stdout.splitlines() if line.strip()
    }
    assert rows["model.kernel_size"] == ["8", "7"]
    assert rows["seed"] == ["1", "2"]
    assert rows["test"] == ["mse", "1.00e-4", "0.250"]
    assert "optimizer.lr" not in rows
    assert "status" not in rows


def test_compare_with_an_unfinished_run(output_dir):
    result = invoke(ONE.run_id, UNFINISHED.run_id, "--output-dir", output_dir)
    assert result.exit_code == 0
    assert "unfinished" in result.stdout
    assert "lstm" in result.stdout


def test_where_a_run_was_made_is_no_difference(tmp_path):
    write_run(tmp_path, ONE)
    cut = make_record(seed=5)
    config = cut.config | {"device": "auto", "data_dir": None, "recipe": {"source": "a paper"}}
    write_unfinished(tmp_path, replace(cut, config=config), "")
    shown = invoke(ONE.run_id, cut.run_id, "--output-dir", tmp_path).stdout
    assert "seed" in shown
    assert not [key for key in ("device  auto", "data_dir", "recipe") if key in shown]


def test_a_run_beside_itself(output_dir):
    assert "no setting differs" in invoke(ONE.run_id, ONE.run_id, "--output-dir", output_dir).stdout


def test_compare_tells_how_fast_each_was_and_on_what(output_dir):
    result = invoke(ONE.run_id, TWO.run_id, FAST.run_id, "--output-dir", output_dir)
    rows = [re.split(r"\s{2,}", line.strip()) for line in result.stdout.splitlines()]
    assert rows[0] == [
        part
        for pair in zip("abc", (ONE.run_id, TWO.run_id, FAST.run_id), strict=True)
        for part in pair
    ]
    for row in (
        ["model.kernel_size", "8", "7", "8"],
        ["steps/s", "40.5", "40.5", "100"],
        ["training time", "2 m 03 s", "2 m 03 s", "50 s"],
        ["device", "cpu (x86_64)", "cpu (x86_64)", "cpu (x86_64)"],
        ["threads", "1", "1", "2"],
        ["compiled", "attention_cpu, llama_cpu", "attention_cpu, llama_cpu", "none"],
        ["parameters", "70,369", "70,369", "70,369"],
        ["peak memory", "381 MiB", "381 MiB", "381 MiB"],
    ):
        assert row in rows


def test_compare_draws_the_curves_into_one_plot(output_dir):
    result = invoke(ONE.run_id, TWO.run_id, FAST.run_id, "--output-dir", output_dir)
    _, title, plot = result.stdout.partition("valid MSE over 5,000 steps, log axis")
    assert title
    assert plot.startswith("; line: 0.167 without memory\n")
    rows = [line.partition("│")[2] for line in plot.splitlines()[2:12]]
    assert "b" in rows[0]
    assert "a" in rows[-1]
    assert "c" not in plot, "it has no events"


def test_compare_wants_two_runs(output_dir):
    for count in (1, 27):
        result = invoke(*[ONE.run_id] * count, "--output-dir", output_dir)
        assert isinstance(result.exception, ConfigError)
        assert str(result.exception) == f"compare takes 2 to 26 runs, not {count}"


def test_a_run_that_is_not_there_is_one_line(output_dir):
    result = invoke(ONE.run_id, "zzzz", "--output-dir", output_dir)
    assert isinstance(result.exception, ConfigError)
    assert "no run 'zzzz'" in str(result.exception)
