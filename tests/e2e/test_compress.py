"""`seqbench compress` as a user calls it, and other commands with the runs that it makes."""

import json
import os
import shlex
import signal
from pathlib import Path

import onnx
import pytest
from patience import until

from seqbench.config.compose import compose
from seqbench.experiment import run
from seqbench.results.command import command
from seqbench.runs.record import read_record

TABLE = "a,b\n" + "".join(f"{i % 7},{(i * 3) % 5}\n" for i in range(400))
TRAIN = ("model=gru", "task=forecast_file", "task.path=table.csv", "budget=smoke")
TRAIN += ("task.target=a", "task.length=12", "task.horizon=2", "threads=1")
TRAIN += ("model.hidden_size=16", "trainer.steps=20", "recipe=none")


@pytest.fixture
def parent(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("table.csv").write_text(TABLE)
    assert run(compose(TRAIN)).status == "completed"
    (folder,) = tmp_path.glob("outputs/runs/*/*/*")
    return folder


def children(parent):
    return [folder for folder in parent.parent.iterdir() if folder != parent]


def events(folder):
    log = folder / "events.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def test_a_compressed_run_is_a_run_like_any_other(tmp_path, seqbench, parent):
    words = ["compress", parent.name[:6], "--prune", "units=0.5", "--quantize", "int8-weights"]
    planned = seqbench(*words, "--dry-run")
    assert planned.stdout.split()[:2] == ["to", "run"]
    assert not children(parent)
    done = seqbench(*words)
    assert done.returncode == 0, done.stderr
    (child,) = children(parent)
    assert child.name[:8] in planned.stdout
    assert "units 50 %, int8-weights: completed: test MSE " in done.stderr
    assert "- units 50 %, int8-weights" in done.stdout
    assert seqbench(*words, "--dry-run").stdout.startswith("completed")

    record = read_record(child / "record.json")
    scored = json.loads(seqbench("eval", child.name).stdout)
    assert scored["mse"] == record.metrics["test"]["mse"]
    forecast = seqbench("predict", child.name, "--input", "table.csv")
    assert forecast.returncode == 0, forecast.stderr
    exported = seqbench("export", child.name, "-o", "small.onnx")
    assert exported.returncode == 0, exported.stderr
    tensors = onnx.load(tmp_path / "small.onnx").graph.initializer
    sizes = {size for tensor in tensors for size in tensor.dims}
    assert 3 * 8 in sizes  # the three gates of 8 units, not of 16
    assert 16 not in sizes

    assert "1 compressed, not in the table" in seqbench("table").stderr
    lines = json.loads(seqbench("table", "--rows", "method", "-f", "json").stdout)
    assert [line["run_id"] for line in lines] == [parent.name, child.name]
    assert lines[1]["difference"] == lines[1]["score"] - lines[0]["score"]
    assert lines[1]["bytes"] == (child / "checkpoints" / "best.safetensors").stat().st_size
    assert "method=units 50 %, int8-weights" in seqbench("runs").stdout
    assert seqbench("plot", "--kind", "pareto", "--x", "bytes").returncode == 0
    assert "gru (units 50 %" in Path(tmp_path / "pareto.svg").read_text()


def test_interrupted_it_goes_on_with_the_same_command(seqbench, start, parent):
    words = ("compress", parent.name, "--prune", "weights=0.5", "--finetune", "400")
    words += ("optimizer.lr=0.002", "trainer.checkpoint_every=10", "trainer.log_every=1")
    running = start(*words)
    until(lambda: any(events(folder) > 5 for folder in children(parent)))
    os.kill(running.process.pid, signal.SIGINT)
    assert running.wait().returncode == 130
    done = seqbench(*words)
    assert done.returncode == 0, done.stderr
    assert "resumed from the checkpoint at step" in done.stderr
    (child,) = children(parent)
    record = read_record(child / "record.json")
    assert record.steps == 400
    # The command that a report prints makes the same run.
    again = shlex.split(command(record.config))
    assert seqbench(*again[1:], "--dry-run").stdout.split()[:2] == ["completed", child.name[:8]]
