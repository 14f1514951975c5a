from pathlib import Path

import pytest
from record_factory import make_record, write_run
from typer.testing import CliRunner, Result

from seqbench.cli.main import app
from seqbench.errors import ConfigError


@pytest.fixture
def outputs(tmp_path, monkeypatch) -> Path:
    """Provide a current folder with runs of two models on the copy task at two lengths."""
    monkeypatch.chdir(tmp_path)
    for model in ("tcn", "gru"):
        for length in (100, 1000):
            record = make_record("copy", model, value=length / 1e5, task__length=length)
            record.metrics["test"]["recall_accuracy"] = 0.9
            folder = write_run(tmp_path / "outputs", record)
            (folder / "events.jsonl").write_text(
                '{"step": 1, "split": "train", "loss": 2.0}\n'
                '{"step": 1, "split": "valid", "cross_entropy": 2.0, "recall_accuracy": 0.1}\n'
            )
    return tmp_path


def plot(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["plot", *map(str, arguments)])


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--metric", "loss", "-o", "curves.pdf"],
        ["--metric", "recall_accuracy", "-o", "curves.png"],
        ["--kind", "scaling"],
        ["-k", "scaling", "--x", "length", "--metric", "recall_accuracy", "-o", "scaling.png"],
        ["-k", "pareto", "--x", "parameters", "--linear", "-o", "pareto.pdf"],
    ],
)
def test_a_figure_is_written_and_named(outputs, arguments):
    result = plot(*arguments)
    kind = "scaling" if "scaling" in arguments else "curves"
    name = arguments[arguments.index("-o") + 1] if "-o" in arguments else f"{kind}.svg"
    assert result.exception is None
    assert result.output == f"{name}: 4 runs\n"
    assert (outputs / name).stat().st_size > 5000


def test_paths_and_a_filter_choose_the_runs(outputs):
    result = plot("outputs/runs/copy/tcn", "--where", "length=100", "-o", "one.svg")
    assert result.output == "one.svg: 1 run\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone"], "there is no folder 'gone'"),
        (["-o", "plot.gif"], "a plot is a .png, .svg or .pdf file, not 'plot.gif'"),
        (["-o", "gone/plot.svg"], "there is no folder 'gone': create it"),
        (["--where", "seed=9"], "no runs in outputs: none matches"),
        (["--where", "sed=9"], "did you mean 'seed'"),
        (["--metric", "los"], "no run has a curve of 'los'"),
        (["--x", "length"], "curves go over steps or epochs, not 'length'"),
        (["-k", "scaling", "--metric", "loss"], "no run has a metric 'loss'"),
        (["-k", "pareto", "--x", "model.size"], "no run has a key 'model.size'"),
        (["-k", "forecast", "--linear"], "--linear is not for --kind forecast"),
        (["-k", "forecast", "--trust", "mine"], "--trust is for --window"),
    ],
)
def test_mistakes_cost_one_line_and_leave_no_file(outputs, arguments, message):
    result = plot(*arguments)
    assert isinstance(result.exception, ConfigError)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
    assert [path.name for path in outputs.iterdir()] == ["outputs"]


def test_no_runs_are_told_with_what_makes_one(tmp_path):
    result = plot("--output-dir", tmp_path)
    assert "'seqbench train' makes one" in str(result.exception)


def test_a_file_that_is_there_is_replaced_only_if_it_is_named(outputs):
    (outputs / "curves.svg").write_text("mine")
    assert "curves.svg exists: -o curves.svg overwrites it" in str(plot().exception)
    assert (outputs / "curves.svg").read_text() == "mine"
    assert plot("-o", "curves.svg").exit_code == 0
    assert (outputs / "curves.svg").read_text() != "mine"


def test_a_record_that_cannot_be_read_is_left_out_and_named(outputs):
    (next(outputs.rglob("record.json"))).write_text("{")
    result = plot("-o", "plot.svg")
    assert result.stderr.startswith("left out: ")
    assert result.stdout == "plot.svg: 3 runs\n"


def test_runs_that_have_nothing_to_draw_are_counted_apart(outputs):
    write_run(outputs / "outputs", make_record(seed=8, status="diverged"))
    write_run(outputs / "outputs", make_record(seed=9, status="failed"))
    result = plot("-o", "plot.svg")
    assert result.stdout == (
        "plot.svg: 6 runs (1 failed, 1 diverged among them, as far as they came)\n"
    )
    scaling = ("--kind", "scaling", "-o", "scaling.svg")
    assert plot(*scaling).stdout == "scaling.svg: 4 runs (without 1 failed, 1 diverged)\n"
    failed = plot(*scaling, "--where", "seed=9")
    assert "nothing to draw: 1 failed" in str(failed.exception)


def test_runs_that_have_not_ended_are_not_denied(outputs):
    for record in outputs.glob("outputs/runs/*/*/*/record.json"):
        record.unlink()
    assert "no runs in outputs: none has ended yet, see" in str(plot().exception)
