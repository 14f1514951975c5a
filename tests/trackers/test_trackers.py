"""Trackers, read back by their own libraries."""

import builtins
import json
import os
import pty
import signal
import subprocess
import sys
from collections import defaultdict

import pytest

from seqbench.config.compose import compose
from seqbench.config.trust import read
from seqbench.errors import ConfigError
from seqbench.experiment import run
from seqbench.runs.observer import Observer
from seqbench.runs.run import Run
from seqbench.trackers import tensorboard
from seqbench.trackers.tracker import Guarded

SMALL = [
    *("model=tcn", "model.channels=[4]", "model.kernel_size=3", "model.dropout=0.2"),
    *("task=adding", "task.length=12", "task.train_size=32", "task.eval_size=16"),
    *("recipe=none", "threads=1", "device=cpu", "trainer.batch_size=8", "trainer.steps=20"),
    *("trainer.eval_every=4", "trainer.checkpoint_every=5", "trainer.log_every=3"),
]
ALL = ["tracker=[tensorboard,wandb,mlflow]", "tracker.wandb.mode=offline"]


def small(folder, *words):
    return compose([*SMALL, f"output_dir={folder}", *words])


def events(config):
    return [json.loads(line) for line in Run.of(config).events_path.open()]


def expected(config):
    """Return what a tracker must have: `{"valid/mse": [(4, ...), ...]}`."""
    found = defaultdict(list)
    for event in events(config):
        for name in event.keys() - {"step", "split"}:
            found[f"{event['split']}/{name}"].append((event["step"], event[name]))
    return found


# The libraries take seconds to import, which collecting the tests must not.


def in_tensorboard(config):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    name = Run.of(config).folder.parts[-3:]
    folder = str(tensorboard.Path(config["output_dir"], "tensorboard", *name))
    read_back = EventAccumulator(folder).Reload()
    return {
        tag: [(e.step, pytest.approx(e.value)) for e in read_back.Scalars(tag)]
        for tag in read_back.Tags()["scalars"]
    }


def in_mlflow(config):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{config['output_dir']}/mlflow.db")
    [experiment] = [e for e in client.search_experiments() if e.name == "seqbench"]
    [found] = client.search_runs([experiment.experiment_id])
    history = {
        name: [(m.step, m.value) for m in client.get_metric_history(found.info.run_id, name)]
        for name in found.data.metrics
    }
    return found, history


def leveldb_log(content):
    """Yield the records of a LevelDB log, the format of an offline wandb run after 7 bytes."""
    at, whole = 7, b""
    while at + 7 <= len(content):
        room = 32768 - at % 32768
        if room < 7:  # the rest of a block that no header fits into
            at += room
            continue
        size, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        whole += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # all of a record, or the end of one
            yield whole
            whole = b""


def in_wandb(config):
    """Return config and rows of an offline run."""
    from wandb.proto.wandb_internal_pb2 import Record as WandBRecord

    values, rows = {}, defaultdict(list)
    [path] = tensorboard.Path(config["output_dir"]).glob("wandb/offline-run-*/*.wandb")
    for data in leveldb_log(path.read_bytes()):
        record = WandBRecord()
        record.ParseFromString(data)
        for item in record.run.config.update:
            values[item.key] = json.loads(item.value_json)
        row = {
            (item.key or "/".join(item.nested_key)): json.loads(item.value_json)
            for item in record.history.item
        }
        for name in row:
            if "/" in name:
                rows[name].append((row["step"], row[name]))
    return values, rows


def test_every_tracker_has_what_was_measured_and_changes_nothing(tmp_path):
    plain, tracked = small(tmp_path / "plain"), small(tmp_path / "tracked", *ALL)
    alone, watched = run(plain), run(tracked)
    for record in (alone, watched):
        record.measured.clear()
    assert alone == watched
    assert Run.of(plain).events_path.read_bytes() == Run.of(tracked).events_path.read_bytes()

    score = [(20, pytest.approx(watched.score.value, rel=1e-6))]
    final, scalars = "final/test/mse", in_tensorboard(tracked)
    assert {tag: scalars[tag] for tag in expected(tracked)} == expected(tracked)
    assert scalars[final] == score

    found, history = in_mlflow(tracked)
    assert {name: history[name] for name in expected(tracked)} == expected(tracked)
    assert history[final] == score
    assert found.info.status == "FINISHED"
    assert found.data.params["model.dropout"] == "0.2"
    assert found.data.tags["run_id"] == watched.run_id

    config, rows = in_wandb(tracked)
    assert rows == expected(tracked)
    assert config["model"]["dropout"] == 0.2


class CutAt(Observer):
    def event(self, event):
        if event["step"] >= 12:
            raise SystemExit


def test_a_run_that_goes_on_goes_on_in_its_trackers(tmp_path):
    """Metrics after the last checkpoint are computed again, and shown once.

    At step 9 there are a checkpoint and an event.
    """
    config = small(tmp_path, "tracker=[tensorboard,mlflow]", "trainer.checkpoint_every=9")
    with pytest.raises(SystemExit):
        run(config, CutAt())
    run(config)
    scalars = in_tensorboard(config)
    assert {tag: scalars[tag] for tag in expected(config)} == expected(config)
    _, history = in_mlflow(config)
    for name, points in expected(config).items():
        assert sorted(set(history[name])) == points


class Broken(Observer):
    """A tracker that raises an error at a given moment."""

    def __init__(self, at: str, error: str) -> None:
        self.at, self.error = at, error
        self.fail("made")

    def fail(self, moment):
        if moment == self.at:
            raise vars(builtins)[self.error](f"{moment} was too much\nfor it")

    def started(self, facts):
        self.fail("started")

    def event(self, event):
        self.fail("event")

    def finished(self, record):
        self.fail("finished")

    def close(self):
        self.fail("close")


@pytest.mark.parametrize(
    ("moment", "error"),
    [
        *(("made", "OSError"), ("finished", "RuntimeError"), ("close", "SystemExit")),
        *(("started", "KeyboardInterrupt"), ("event", "KeyboardInterrupt")),
    ],
)
def test_a_tracker_that_fails_says_so_once_and_the_run_goes_on(tmp_path, capsys, moment, error):
    config = small(tmp_path)
    target = {"_target_": f"{__name__}.Broken", "at": moment, "error": error}
    config["tracker"] = {"broken": target}
    assert run(config).status == "completed"
    [line] = [line for line in capsys.readouterr().err.splitlines() if "broken" in line]
    assert line.startswith("warning: tracker broken disabled, the run continues: ")
    assert line in Run.of(config).log_path.read_text().splitlines()


def test_ctrl_c_while_a_tracker_works_is_the_users(capsys):
    guarded = Guarded("broken", Observer, print)
    with pytest.raises(KeyboardInterrupt):
        guarded.attempt(lambda: os.kill(os.getpid(), signal.SIGINT))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert capsys.readouterr().out == ""


WITHOUT_KEY = """
import json
import sys
from seqbench.trackers.wandb import WandB
from seqbench.trackers.tracker import Guarded
facts = json.loads(sys.argv[1])
tracker = Guarded("wandb", lambda: WandB("p", None, None, "."), print)
tracker.started(facts)
tracker.event({"step": 1, "split": "train", "loss": 0.5})
tracker.close()
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["", "offline"])
def test_wandb_asks_for_nothing(tmp_path, mode):
    """In a terminal without a key wandb is disabled, unless WANDB_MODE needs no key."""
    terminal, end = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    environment |= {"HOME": str(tmp_path)} | ({"WANDB_MODE": mode} if mode else {})
    facts = {"config": small(tmp_path), "parameters": 1}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_KEY, json.dumps(facts)],
        stdin=end,
        stdout=subprocess.PIPE,
        stderr=end,
        cwd=tmp_path,
        env=environment,
    )
    os.close(terminal)
    assert done.returncode == 0
    assert (b"API key" in done.stdout) == (not mode)
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == (mode == "offline")


def test_a_server_that_is_gone_is_asked_once_more_and_no_longer(tmp_path, capsys):
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES

    config = small(tmp_path, "tracker=mlflow", "tracker.mlflow.uri=http://127.0.0.1:9")
    assert run(config).status == "completed"
    assert "warning: tracker mlflow disabled, the run continues: " in capsys.readouterr().err
    assert MLFLOW_HTTP_REQUEST_MAX_RETRIES.get() == 1  # else it would be asked for minutes


def test_who_watches_is_no_part_of_what_a_run_is(tmp_path):
    plain, tracked = small(tmp_path), small(tmp_path, *ALL)
    assert Run.of(plain).run_id == Run.of(tracked).run_id
    run(small(tmp_path, "tracker=tensorboard"))
    assert read(Run.of(plain).folder / "config.yaml")["tracker"] == {}


def test_a_wrong_tracker_costs_a_line(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"no tracker named 'wandbb' \(did you mean 'wandb'\?\)"):
        small(tmp_path, "tracker=wandbb")
    with pytest.raises(ConfigError, match=r"no key 'tracker.wandb.mod' \(did you mean"):
        small(tmp_path, "tracker=wandb", "tracker.wandb.mod=offline")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.delitem(sys.modules, "seqbench.trackers.mlflow", raising=False)
    monkeypatch.delattr("seqbench.trackers.mlflow", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'seqbench\[track\]'$"):
        small(tmp_path, "tracker=mlflow")
