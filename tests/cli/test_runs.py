from pathlib import Path

import pytest
import typer
from record_factory import make_record, write_run, write_unfinished
from rich.cells import cell_len
from typer.testing import CliRunner, Result

from seqbench.cli import compare, runs, show
from seqbench.errors import ConfigError

FAILED = make_record("copy", "gru", seed=7, status="failed")
ONE, TWO = make_record(seed=1), make_record(seed=2, model__kernel_size=7, value=0.25)
UNFINISHED = make_record("copy", "lstm", seed=3)


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def output_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("outputs")
    for record in (FAILED, ONE, TWO):
        write_run(folder, record)
    write_unfinished(folder, UNFINISHED, '{"step": 1400, "split": "valid", "x": 1}\n{"st')
    return folder


def invoke(command: str, *arguments: object) -> Result:
    app = typer.Typer()
    for function in (runs.runs, show.show, compare.compare):
        app.command()(function)
    return CliRunner().invoke(app, [command, *map(str, arguments)])


def listed(result: Result) -> list[str]:
    assert result.exit_code == 0
    return [line.split()[0] for line in result.stdout.splitlines()[1:]]


def test_runs_are_listed_newest_first(output_dir):
    result = invoke("runs", "--output-dir", output_dir)
    # An unfinished run has just been touched; the others finished in the order of their seeds.
    assert listed(result) == [r.run_id[:8] for r in (UNFINISHED, FAILED, TWO, ONE)]
    lines = result.stdout.splitlines()
    assert "unfinished" in lines[1]
    assert "1,400" in lines[1]
    assert lines[3].split() == [
        TWO.run_id[:8],
        *("adding", "T=600", "tcn", "2", "full", "completed", "MSE", "0.250", "5,000"),
        *("2", "m", "03", "s", "cpu", "(x86_64)"),
    ]


@pytest.mark.parametrize(
    ("arguments", "records"),
    [
        (["--status", "failed"], [FAILED]),
        (["--status", "unfinished"], [UNFINISHED]),
        (["--status", "completed"], [TWO, ONE]),
        (["--where", "seed<3"], [TWO, ONE]),
        (["--where", "task=copy"], [UNFINISHED, FAILED]),
        (["--where", "task=copy", "--status", "failed"], [FAILED]),
        (["--limit", "2"], [UNFINISHED, FAILED]),
        (["--limit", "0"], [UNFINISHED, FAILED, TWO, ONE]),
    ],
)
def test_runs_can_be_chosen(output_dir, arguments, records):
    result = invoke("runs", "--output-dir", output_dir, *arguments)
    assert listed(result) == [record.run_id[:8] for record in records]


def test_what_the_limit_hides_is_said(output_dir):
    assert "1 more: --limit 0" in invoke("runs", "--output-dir", output_dir, "--limit", 3).stderr


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_gets_fewer_columns(output_dir, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    result = invoke("runs", "--output-dir", output_dir)
    lines = result.stdout.splitlines()
    assert len(lines) == 5
    assert max(cell_len(line) for line in lines) <= width
    assert lines[0].split()[:4] == ["run", "task", "model", "seed"]
    assert "device" not in lines[0]
    assert "score" in lines[0]


def test_no_runs_are_a_hint(tmp_path, output_dir):
    result = invoke("runs", "--output-dir", tmp_path)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "seqbench train" in result.stderr
    assert "none matches" in invoke("runs", "--output-dir", output_dir, "--where", "seed=9").stderr


def test_show_tells_the_score_its_bounds_and_the_published_one(output_dir):
    result = invoke("show", TWO.run_id[:6], "--output-dir", output_dir)
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    for part in (
        f"run {TWO.run_id}",
        "model tcn, 70,369 parameters",
        "reached MSE 0.250 on test (lower is better)",
        "without memory 0.167",
        "best possible 0",
        "tcn2018 5.8e-5 not like for like: protocol ours instead of paper",
        "model.kernel_size 7",
        "valid mse 0.250",
        "record.json",
        "older code",
        "torch 2.8.0",
        "time 2 m 03 s",
    ):
        assert part in text, part
    assert "_partial_" not in text


def test_show_tells_what_went_wrong(output_dir):
    text = invoke("show", FAILED.run_id, "--output-dir", output_dir).stdout
    assert "failed: KeyError: 'x'" in text
    assert "reached" not in text


def test_show_tells_how_far_an_unfinished_run_came(output_dir):
    text = " ".join(invoke("show", UNFINISHED.run_id, "--output-dir", output_dir).stdout.split())
    assert "status unfinished" in text
    assert "last step 1,400" in text
    assert "task.length 1000" in text


def test_compare_shows_what_differs_and_the_metrics(output_dir):
    result = invoke("compare", ONE.run_id, TWO.run_id, "--output-dir", output_dir)
    rows = {
        line.split()[0]: line.split()[1:] for line in result.stdout.splitlines() if line.strip()
    }
    assert rows["model.kernel_size"] == ["8", "7"]
    assert rows["seed"] == ["1", "2"]
    assert rows["test"] == ["mse", "1.00e-4", "0.250"]
    assert "optimizer.lr" not in rows
    assert "status" not in rows


def test_compare_with_an_unfinished_run(output_dir):
    result = invoke("compare", ONE.run_id, UNFINISHED.run_id, "--output-dir", output_dir)
    assert result.exit_code == 0
    assert "unfinished" in result.stdout
    assert "lstm" in result.stdout


def test_a_run_that_is_not_there_is_one_line(output_dir):
    for arguments in (["show", "zzzz"], ["compare", ONE.run_id, "zzzz"]):
        result = invoke(*arguments, "--output-dir", output_dir)
        assert isinstance(result.exception, ConfigError)
        assert "no run 'zzzz'" in str(result.exception)
