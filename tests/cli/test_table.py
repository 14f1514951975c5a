import json
from io import StringIO
from pathlib import Path

import pytest
import typer
from record_factory import make_record, write_run, write_unfinished
from rich.cells import cell_len
from rich.console import Console
from typer.testing import CliRunner, Result

from seqbench.cli.table import table
from seqbench.cli.table_view import show_table
from seqbench.errors import ConfigError
from seqbench.results.cells import aggregate
from seqbench.results.tables.comparison import build_table

RECORDS = [
    make_record(task, model, seed, value=0.001 + 0.01 * seed)
    for task in ("adding", "copy", "smnist", "char_ptb")
    for model in ("tcn", "lstm", "gru")
    for seed in range(3)
]


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def output_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("outputs")
    for record in RECORDS:
        write_run(folder, record)
    return folder


def invoke(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(table)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_table_on_stdout_and_nothing_on_stderr(output_dir):
    result = invoke("--output-dir", output_dir)
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "adding T=600" in result.stdout
    assert "0.0110 ± 0.0248" in result.stdout
    assert "without memory" in result.stdout
    assert "\x1b" not in result.stdout


def test_a_folder_may_be_named_instead(output_dir):
    result = invoke(output_dir / "runs" / "adding")
    assert "adding T=600" in result.stdout
    assert "copy" not in result.stdout


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    result = invoke(tmp_path / "gone")
    assert isinstance(result.exception, ConfigError)
    assert "there is no folder" in str(result.exception)


def test_json_and_csv_are_alone_on_stdout(output_dir):
    objects = json.loads(invoke("--output-dir", output_dir, "--format", "json").stdout)
    assert len(objects) == 12
    lines = invoke("--output-dir", output_dir, "-f", "csv").stdout.splitlines()
    assert lines[0].startswith("task,length,budget,protocol,model")
    assert len(lines) == 13


def test_markdown_has_no_terminal_in_it(output_dir):
    assert invoke("--output-dir", output_dir, "-f", "markdown").stdout.startswith("**Test scores**")


def test_where_and_paper(output_dir):
    result = invoke(
        "--output-dir", output_dir, "--where", "seed<1, model=tcn", "--paper", "tcn2018"
    )
    assert "n=1" in result.stdout
    assert "lstm" not in result.stdout
    assert "5.8e-5" in result.stdout
    assert "published scores: protocol paper" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--where", "sed<1"], "did you mean 'seed'"),
        (["--paper", "tcn2017"], "did you mean 'tcn2018'"),
        (["--rows", "method", "--metric", "loss"], "--metric is not for --rows method"),
        (["--rows", "method", "--cols", "seed"], "--cols is not for --rows method"),
        (["--against", "tcn", "-f", "csv"], "--against is not for -f csv"),
    ],
)
def test_mistakes_cost_one_line(output_dir, arguments, message):
    result = invoke("--output-dir", output_dir, *arguments)
    assert isinstance(result.exception, ConfigError)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)


@pytest.mark.parametrize(
    ("format", "stdout"), [("rich", ""), ("markdown", ""), ("json", "[]\n"), ("csv", "task,")]
)
def test_no_runs_are_an_empty_table_and_a_hint(tmp_path, format, stdout):
    result = invoke("--output-dir", tmp_path, "--format", format)
    assert result.exit_code == 0
    assert result.stdout.startswith(stdout)
    assert len(result.stdout.splitlines()) == (format in ("json", "csv"))
    assert result.stderr.count("\n") == 1
    assert "seqbench train" in result.stderr


def test_no_match_is_told_from_no_runs(output_dir):
    result = invoke("--output-dir", output_dir, "--where", "seed=99")
    assert result.stdout == ""
    assert "none of 36 runs matches" in result.stderr


def test_what_is_left_out_is_told_on_stderr(tmp_path):
    write_run(tmp_path, make_record())
    write_unfinished(tmp_path, make_record(seed=1), "")
    broken = write_run(tmp_path, make_record(seed=2))
    (broken / "record.json").write_text("{}")
    result = invoke("--output-dir", tmp_path, "-f", "json")
    assert len(json.loads(result.stdout)) == 1
    assert f"left out: {broken / 'record.json'}: " in result.stderr
    result = invoke("--output-dir", tmp_path)
    assert "1 unfinished" in result.stderr


def printed(width: int, records=RECORDS, paper=None, **options) -> str:
    console = Console(file=StringIO(), width=width, highlight=False, **options)
    show_table(build_table(aggregate(records), paper), console)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [50, 80, 100, 140])
@pytest.mark.parametrize("paper", [None, "tcn2018"])
def test_a_table_fits_any_terminal_and_loses_nothing(width, paper):
    text = printed(width, paper=paper)
    assert max(cell_len(line) for line in text.splitlines()) <= width
    for header in ("adding T=600", "copy T=1000", "smnist T=784", "char_ptb T=400"):
        assert header in text
    # Three models and four tasks, all with three seeds; accuracies are in per cent.
    assert text.count("0.0110 ± 0.0248") == 9
    assert text.count("1.10 ± 2.48") == 3


def test_a_published_column_stands_beside_its_measured_one():
    for line in printed(80, paper="tcn2018").splitlines():
        if "5.8e-5" in line:
            assert "0.0110 ± 0.0248" in line
            return
    pytest.fail("no published number")


BEST_OF_TWO = [
    make_record(model=model, seed=seed, value=value)
    for model, value in (("tcn", 0.1), ("lstm", 0.2))
    for seed in range(2)
]


def test_the_best_mean_is_bold_in_a_terminal_and_starred_elsewhere():
    assert "0.100*" in printed(100, BEST_OF_TWO)
    coloured = printed(100, BEST_OF_TWO, force_terminal=True, color_system="standard")
    assert "\x1b[1;32m0.100" in coloured
    assert "*" not in coloured


def test_without_colour_bold_type_remains():
    text = printed(100, BEST_OF_TWO, force_terminal=True, color_system="standard", no_color=True)
    assert "\x1b[1m0.100" in text
    assert "32m" not in text


def test_names_are_no_markup():
    (line,) = [
        line
        for line in printed(120, [make_record(model="[red]x[/red]\x1b[2J")]).splitlines()
        if "red" in line
    ]
    assert line.startswith("[red]x[/red][2J")


def test_without_compressed_runs_there_is_no_table_of_methods(output_dir):
    result = invoke("--output-dir", output_dir, "--rows", "method")
    assert result.stdout == ""
    assert isinstance(result.exception, ConfigError)
    assert "no compressed runs: 'seqbench compress RUN" in str(result.exception)
