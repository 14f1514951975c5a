import json
import re

import pytest
import torch
from typer.testing import CliRunner

from seqbench.bench import flops
from seqbench.cli.main import app
from seqbench.errors import ConfigError

SMALL = ["model=tcn", "task=adding", "budget=smoke", "threads=1", "model.channels=[4,4]"]
QUICK = ["--steps", "2", "--rounds", "2"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Provide an empty folder, a wide terminal, and short measurements of the machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(flops, "SECONDS", 0.01)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    assert list(tmp_path.iterdir()) == []  # nothing is written


def bench(*words):
    return CliRunner().invoke(app, ["bench", *words])


def test_json_is_one_object_alone_on_stdout():
    result = bench(*SMALL, *QUICK, "--format", "json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    for key in ("step_ms", "samples_per_second"):
        assert found[key] > 0, key
    assert found["peak_memory_bytes"] >= 4 * found["parameters"]
    assert (found["model"], found["task"], found["threads"]) == ("tcn", "adding", 1)
    assert (found["rounds"], found["steps"]) == (2, 2)
    assert set(found["split"]) == {"data", "forward", "backward", "optimizer", "other"}


def test_a_panel_for_people():
    result = bench(*SMALL, *QUICK)
    assert result.exit_code == 0, result.output
    assert "tcn on adding" in result.stdout
    for word in ("steps/s", "tokens/s", "MiB", "forward", "GFLOP/s", "2 rounds of 2 steps"):
        assert word in result.stdout, word
    assert "plain" not in result.stdout


@pytest.mark.slow
def test_a_sweep_is_a_table_and_an_exponent():
    result = bench(*SMALL, *QUICK, "--sweep", "length=20,40", "--reference")
    assert result.exit_code == 0, result.output
    assert "ratio" in result.stdout
    assert re.search(r"time ~ length\^\S+ \(± \S+ by the spread of steps\)", result.stdout)
    assert "plain time ~ length^" in result.stdout


def test_a_sweep_in_json_has_its_points():
    result = bench(*SMALL, *QUICK, "--sweep", "batch=4,8", "-f", "json")
    found = json.loads(result.stdout)
    assert found["values"] == [4, 8]
    assert [point["batch_size"] for point in found["points"]] == [4, 8]
    assert isinstance(found["exponent"], float)
    assert found["exponent_error"] > 0
    assert found["reference_exponent"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model=tcm"], "did you mean 'tcn'"),
        (["model.kernel=3"], "did you mean 'model.kernel_size'"),
        (["task.length=1"], "at least 2"),
        (["--sweep", "length=100"], "two or more whole numbers"),
        (["--sweep", "task.lenght=10,20"], "did you mean 'task.length'"),
        (["--sweep", "length=1,20"], "at least 2"),
        (["device=tpu"], "device must be"),
    ],
)
def test_mistakes_cost_one_line(words, message):
    result = bench("model=tcn", "task=adding", "budget=smoke", "threads=1", *QUICK, *words)
    assert isinstance(result.exception, ConfigError)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
