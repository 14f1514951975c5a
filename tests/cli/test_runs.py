import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from record_factory import make_record, write_run, write_unfinished
from rich.cells import cell_len
from rich.console import Console
from typer.testing import CliRunner, Result

from seqbench.cli.main import app
from seqbench.cli.runs import Runs, fitting, hidden_columns, view
from seqbench.config.compose import compose
from seqbench.errors import ConfigError
from seqbench.runs import lock

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
    assert lines[3].split()[:14] == [
        TWO.run_id[:8],
        *("adding", "T=600", "tcn", "2", "full", "completed", "MSE", "0.250", "5,000"),
        *("2", "m", "03", "s"),
    ]


def test_what_a_run_sets_otherwise_than_its_recipe_is_told(tmp_path, monkeypatch):
    config = compose(["model=gru", "task=adding", "budget=smoke"])
    other = compose(
        ["model=gru", "task=adding", "budget=smoke", "optimizer.lr=0.01", "trainer.clip=null"]
    )
    for seed, one in enumerate((config, other)):
        write_run(tmp_path, replace(make_record(seed=seed), config=one))
    header, second, first = invoke("runs", tmp_path).stdout.splitlines()
    assert header.split()[-1] == "settings"
    assert "lr=0.01, clip=null" in second
    assert "=" not in first.partition("T=600")[2]
    monkeypatch.setenv("COLUMNS", "60")
    assert "lr=" not in invoke("runs", tmp_path).stdout


def test_runs_on_texts_of_ones_own_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    text = tmp_path / "text.txt"
    text.write_text("all work and no play " * 100)
    words = ["model=gru", "task=char_file", f"task.path={text}", "budget=smoke"]
    many = ["trainer.clip=9", "model.dropout=0.5", "model.hidden_size=7", "schedule.warmup=0.5"]
    for seed, more in enumerate(([], ["optimizer.lr=0.5"], many)):
        config = compose([*words, *more])
        write_run(tmp_path, replace(make_record("char_file", seed=seed), config=config))
    _, last, second, first = invoke("runs", tmp_path).stdout.splitlines()
    assert "  path=text.txt" in first
    assert "  lr=0.5, path=text.txt" in second
    assert "+1 more" in last


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
    assert "device" in result.stderr.partition("too narrow for ")[2]


def test_columns_that_fit_into_the_room_of_a_wider_one_come_back():
    row = {"run": "r" * 8, "budget": "full", "steps": "5", "took": "1 m 00 s", "device": "cpu"}
    row["settings"] = "s" * 90
    assert list(fitting([row], 100)) == list(row)
    assert list(fitting([row], 32)) == ["run", "settings"]
    assert list(fitting([row], 31)) == ["run", "budget", "steps"]
    assert hidden_columns([row, row], 31) == ["took", "device", "settings"]
    assert sum(fitting([row], 100).values()) == 100 - 2 * 6


def test_runs_of_a_folder_are_listed(output_dir):
    assert listed(invoke("runs", output_dir / "runs/copy/gru")) == [FAILED.run_id[:8]]
    missing = invoke("runs", output_dir / "nowhere")
    assert missing.exit_code != 0
    assert "there is no folder" in str(missing.exception)


def test_no_runs_are_a_hint(tmp_path, output_dir):
    result = invoke("runs", "--output-dir", tmp_path)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "seqbench train" in result.stderr
    assert "none matches" in invoke("runs", "--output-dir", output_dir, "--where", "seed=9").stderr


@pytest.fixture
def training(tmp_path):
    """Provide three runs: held by this process at step 250 of 1,000, completed, and interrupted."""
    write_run(tmp_path, ONE)
    write_unfinished(tmp_path, make_record("copy", "lstm", seed=4), "")
    folder = write_unfinished(tmp_path, UNFINISHED, "")
    start = {"event": "started", "step": 0, "total_steps": 1000}
    start |= {"metric": "cross_entropy", "direction": "min"}
    (folder / "history.jsonl").write_text(json.dumps(start) + "\n")
    log(folder, {"step": 200, "split": "valid", "cross_entropy": 0.0125})
    log(folder, {"step": 250, "split": "train", "loss": 0.5})
    with lock.held(folder, "run"):
        yield folder


def log(folder, event):
    with (folder / "events.jsonl").open("a") as file:
        file.write(json.dumps(event) + "\n")


def test_a_run_that_is_being_trained_stands_first_with_how_far_it_is(training, tmp_path):
    lines = invoke("runs", "--output-dir", tmp_path).stdout.splitlines()
    assert lines[0].split() == ["running", "step", "loss", "valid"]
    name = f"{UNFINISHED.run_id[:8]} copy T=1000 lstm seed=3"
    told = "250/1,000 0.500 cross-entropy (nats) 0.0125"
    assert " ".join(lines[1].split()) == f"{name} {told}"
    assert [line.split()[0] for line in lines[4:]] == [
        make_record("copy", "lstm", seed=4).run_id[:8],
        ONE.run_id[:8],
    ]


@pytest.mark.parametrize(
    ("arguments", "count", "others"),
    [
        (["--status", "running"], 1, 0),
        (["--where", "status=running"], 1, 0),
        (["--status", "unfinished"], 0, 1),
        (["--where", "model=lstm"], 1, 1),
        (["--where", "seed<3"], 0, 1),
    ],
)
def test_filters_know_what_is_running(training, tmp_path, arguments, count, others):
    result = invoke("runs", "--output-dir", tmp_path, *arguments)
    lines = [line for line in result.stdout.splitlines() if line]
    headers = [line.split()[0] for line in lines if line.startswith(("run ", "running "))]
    assert headers == ["running"] * bool(count) + ["run"] * bool(others)
    assert len(lines) - len(headers) == count + others


def test_a_second_look_tells_speed_and_what_has_ended(training, tmp_path):
    runs = Runs([tmp_path / "runs"], None, None)
    runs.refresh()
    [(_, progress)] = runs.running
    assert progress.speed is None
    log(training, {"step": 500, "split": "train", "loss": 0.25})
    runs.refresh()
    assert runs.running[0][1] is progress
    assert (progress.step, progress.loss) == (500, 0.25)
    assert progress.speed > 0
    assert progress.seconds_left == pytest.approx(500 / progress.speed)
    (training / ".lease").unlink()
    runs.refresh()
    assert runs.running == []
    assert {run.status for run in runs.others} == {"completed", "unfinished"}


@pytest.mark.parametrize(("width", "height"), [(60, 10), (80, 24), (120, 12)])
def test_a_picture_fits_into_the_terminal(tmp_path, width, height):
    for seed in range(30):
        write_run(tmp_path, make_record(seed=seed))
    runs = Runs([tmp_path / "runs"], None, None)
    runs.refresh()
    console = Console(width=width, height=height)
    with console.capture() as capture:
        console.print(view(runs, 0, width, height))
    lines = capture.get().splitlines()
    assert len(lines) <= height
    assert max(map(cell_len, lines)) <= width
    assert "30 others" in lines[0]
    assert make_record(seed=29).run_id[:8] in lines[2], "the newest"


def test_watching_needs_a_terminal(output_dir):
    result = invoke("runs", "--watch", "--output-dir", output_dir)
    assert isinstance(result.exception, ConfigError)
    assert "--watch: expected a terminal" in str(result.exception)


def test_looking_at_a_run_that_is_being_trained_never_imports_torch(training, tmp_path):
    look = "import sys; from seqbench.cli.runs import runs; from pathlib import Path; "
    look += "runs(output_dir=Path(sys.argv[1])); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", look, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("running")


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_watching_shows_what_changes_and_leaves_the_terminal_whole(training, tmp_path, ending):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "seqbench", "runs", "--watch", "--output-dir", tmp_path]
    environment = os.environ | {"TERM": "xterm"}
    watching = subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    try:
        seen = read_until(ours, b"250/1,000")
        log(training, {"step": 750, "split": "train", "loss": 0.25})
        seen += read_until(ours, b"750/1,000")
        watching.send_signal(ending)
        assert watching.wait() == 130
        seen += read_until(ours, b"\x1b[?25h")
    finally:
        watching.kill()
        watching.wait()
        os.close(ours)
    for begin, end in ((b"\x1b[?1049h", b"\x1b[?1049l"), (b"\x1b[?25l", b"\x1b[?25h")):
        assert 0 <= seen.index(begin) < seen.rindex(end)
    assert not re.search(rb"Traceback|error", seen)


def read_until(terminal: int, wanted: bytes) -> bytes:
    """Read the output of a program up to these bytes."""
    seen = b""
    while wanted not in seen:
        if select.select([terminal], [], [], 1.0)[0]:
            seen += os.read(terminal, 65536)
    return seen
