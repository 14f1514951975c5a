import csv
import io
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from record_factory import make_record, write_run, write_unfinished
from rich.cells import cell_len
from typer.testing import CliRunner, Result

from seqbench.cli.main import app
from seqbench.cli.sql import TABLES as HELP
from seqbench.cli.sql import sql
from seqbench.errors import ConfigError
from seqbench.results import sql as tables
from seqbench.results.sql import TABLES

HOSTILE = "=cmd|'/c calc'!A1\x1b[2J[red]x[/red]|<b>&_*`\\"
SEQBENCH = str(Path(sys.executable).with_name("seqbench"))


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def output_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("outputs")
    for model in ("tcn", "lstm"):
        for seed in range(3):
            write_run(folder, make_record("adding", model, seed, value=0.25 * (seed + 1) / 3))
    return folder


def invoke(*arguments: object, stdin: str | bytes | None = None) -> Result:
    app = typer.Typer()
    app.command(help=sql.__doc__)(sql)
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)


def test_a_table_on_stdout_and_nothing_on_stderr(output_dir):
    query = "select model, avg(score) as mean, count(*) as n from runs group by all order by all"
    result = invoke(query, "--output-dir", output_dir)
    assert result.exit_code == 0
    assert result.stderr == ""
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["model", "mean", "n"],
        ["lstm", "0.1667", "3"],
        ["tcn", "0.1667", "3"],
    ]


def test_numbers_stand_in_line(output_dir):
    query = "select 1 as a, 'x' as b, null as c union all select 1000, 'y', null order by a"
    lines = invoke(query, "--output-dir", output_dir).stdout.splitlines()
    assert [line.rstrip() for line in lines] == ["   a  b  c", "   1  x  -", "1000  y  -"]


def test_a_row_too_wide_is_a_list(output_dir):
    result = invoke("select * from runs order by seed limit 2", "--output-dir", output_dir)
    lines = result.stdout.splitlines()
    assert max(map(cell_len, lines)) <= 100
    names = [line.split()[0] for line in lines if line.strip() and not line.startswith(" ")]
    assert names == [*TABLES["runs"], *TABLES["runs"]]


def test_a_folder_may_be_named_instead(output_dir, tmp_path):
    found = invoke("select count(*) from runs", output_dir / "runs" / "adding" / "tcn", "-f", "csv")
    assert found.stdout.splitlines()[1] == "3"
    result = invoke("select 1", tmp_path / "gone")
    assert isinstance(result.exception, ConfigError)
    assert "there is no folder" in str(result.exception)


def test_csv_has_every_digit(output_dir):
    query = "select score, solved, null as x, config.optimizer from runs where seed = 0 limit 1"
    result = invoke(query, "--output-dir", output_dir, "-f", "csv")
    header, row = csv.reader(io.StringIO(result.stdout))
    assert header == ["score", "solved", "x", "optimizer"]
    assert float(row[0]) == 0.25 / 3
    assert row[1:3] == ["false", ""]
    assert json.loads(row[3])["lr"] == 0.004


def test_json_has_numbers_null_and_objects(output_dir):
    query = (
        "select score, config.optimizer as optimizer, null as x, 1.0::double / 0 as inf, "
        "finished from runs where seed = 0 limit 1"
    )
    (found,) = json.loads(invoke(query, "--output-dir", output_dir, "-f", "json").stdout)
    assert found["optimizer"]["lr"] == 0.004
    assert found == {
        "score": 0.25 / 3,
        "optimizer": found["optimizer"],
        "x": None,
        "inf": None,
        "finished": "2026-11-20 10:00:30",
    }


def test_json_needs_a_name_for_each_column(output_dir):
    result = invoke("select seed, seed from runs", "--output-dir", output_dir, "-f", "json")
    assert isinstance(result.exception, ConfigError)
    assert "two columns are called 'seed'" in str(result.exception)


def test_markdown(output_dir):
    query = "select model, avg(score) as mean from runs group by all order by all"
    assert invoke(query, "--output-dir", output_dir, "-f", "markdown").stdout.splitlines() == [
        "| model | mean |",
        "|---|---:|",
        "| lstm | 0.1667 |",
        "| tcn | 0.1667 |",
    ]


@pytest.mark.parametrize(
    ("format", "stdout"),
    [("rich", "seed\n"), ("markdown", "| seed |\n|---|\n"), ("csv", "seed\n"), ("json", "[]\n")],
)
def test_no_runs_are_no_rows_and_a_line(tmp_path, format, stdout):
    result = invoke("select seed from runs", "--output-dir", tmp_path, "-f", format)
    assert result.exit_code == 0
    assert result.stdout == stdout
    assert result.stderr == f"no runs in {tmp_path}\n"


def test_a_query_may_come_from_stdin(output_dir):
    result = invoke("-", "--output-dir", output_dir, "-f", "csv", stdin="-- all\nselect 6 * 7 as x")
    assert result.stdout == "x\n42\n"
    result = invoke("-", "--output-dir", output_dir, stdin=b"select \xff\xfe")
    assert isinstance(result.exception, ConfigError)


def test_what_is_left_out_is_told_on_stderr(tmp_path):
    write_run(tmp_path, make_record())
    write_unfinished(tmp_path, make_record(seed=1), "")
    broken = write_run(tmp_path, make_record(seed=2))
    (broken / "record.json").write_text("{}")
    torn = write_run(tmp_path, make_record(seed=3))
    (torn / "events.jsonl").write_text("nonsense\n{}\n")
    result = invoke("select count(*) from runs, events", "--output-dir", tmp_path, "-f", "csv")
    assert result.stdout.splitlines()[1] == "0"
    assert f"left out: {broken / 'record.json'}: " in result.stderr
    assert f"left out: {torn / 'events.jsonl'}: line 1 is no event" in result.stderr
    assert "1 unfinished" in result.stderr


def test_a_folder_cannot_speak_to_the_terminal(tmp_path):
    broken = tmp_path / "runs" / "x\x1b[2J" / "model" / "run"
    broken.mkdir(parents=True)
    (broken / "record.json").write_text("{}")
    result = invoke("select 1", "--output-dir", tmp_path)
    assert "left out: " in result.stderr
    assert "\x1b" not in result.stderr


@pytest.mark.parametrize("width", ["40", "200"])
@pytest.mark.parametrize("format", ["rich", "markdown", "csv", "json"])
def test_hostile_names_are_text(tmp_path, monkeypatch, format, width):
    monkeypatch.setenv("COLUMNS", width)
    record = make_record()
    record.measured["device"] = HOSTILE
    write_run(tmp_path, record)
    # What stands in the data becomes a column's name, too.
    query = "pivot (select device, device as d, seed from runs) on device using max(seed)"
    result = invoke(query, "--output-dir", tmp_path, "-f", format)
    assert result.exit_code == 0, result.exception
    assert "\x1b" not in result.stdout
    if format == "json":
        assert json.loads(result.stdout) == [{"d": HOSTILE, HOSTILE: 0}]
    elif format == "csv":
        shown = "'" + HOSTILE.replace("\x1b", "")
        assert list(csv.reader(io.StringIO(result.stdout))) == [["d", shown], [shown, "0"]]
    elif format == "markdown":
        assert [len(re.findall(r"(?<!\\)\|", line)) for line in result.stdout.splitlines()] == [
            3,
            3,
            3,
        ]
        assert not re.search(r"(?<!\\)[<*`]", result.stdout)
    else:
        assert "[red]x[/red]" in "".join(result.stdout.split())


def test_the_help_names_every_column_of_every_table():
    tables = dict(re.findall(r"^(runs|events|cells) +(.*?)(?=^\S|\Z)", HELP, re.M | re.S))
    for table, columns in TABLES.items():
        listed = re.sub(r"\([^)]*\)", "", tables[table].partition(":\n")[2]).split("\n\n")[0]
        assert [name.strip() for name in listed.split(",")] == list(columns)


def test_the_examples_of_the_help_work(output_dir):
    examples = re.findall(r'^seqbench sql (?:-f csv )?"(.*)"$', HELP, re.M)
    assert len(examples) == 2
    for example in examples:
        assert example in invoke("--help").stdout
        assert invoke(example, "--output-dir", output_dir).exit_code == 0


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("select scor from runs", "Candidate bindings"),
        ("copy runs to 'out.csv'", "got COPY: runs are read, never changed"),
    ],
)
def test_a_mistake_costs_one_line_and_exit_code_2(tmp_path, query, message):
    done = subprocess.run([SEQBENCH, "sql", query], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: SQL: ")
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("delay", [0, 1])
@pytest.mark.parametrize(
    "endless",
    [
        "select sum(hash(range)) from range(1000000000000)",
        "select count(*) from range(1000000) a, range(1000000) b where a.range + b.range = -1",
    ],
)
def test_ctrl_c_ends_a_long_query(tmp_path, endless, delay):
    with subprocess.Popen(
        [SEQBENCH, "sql", endless],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            while b"duckdb" not in Path(f"/proc/{process.pid}/maps").read_bytes():
                time.sleep(0.05)
            time.sleep(delay)
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate()
        finally:
            process.kill()
    # A shell calls this 130.
    assert process.returncode == -signal.SIGINT
    assert stderr == ""


def test_a_background_job_goes_on_ignoring_ctrl_c(monkeypatch, output_dir):
    seen = []
    query = tables.query

    def spied(*arguments):
        seen.append(signal.getsignal(signal.SIGINT))
        return query(*arguments)

    monkeypatch.setattr(tables, "query", spied)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        result = CliRunner().invoke(app, ["sql", "from runs", "--output-dir", str(output_dir)])
        assert result.exit_code == 0
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [signal.SIG_IGN]
