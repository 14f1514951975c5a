import json
import os
import random
import signal
import sys
from unittest.mock import patch

import numpy as np
import pytest
import torch
from commands import forked

from seqbench import kernels
from seqbench.config.build import build
from seqbench.config.compose import compose
from seqbench.config.trust import read
from seqbench.errors import ConfigError, Interrupted, RunError
from seqbench.experiment import run
from seqbench.experiment.build import build_model, build_task
from seqbench.machine import PROC, flushes_denormals
from seqbench.runs.identity import without_environment
from seqbench.runs.observer import Observer
from seqbench.runs.record import read_record
from seqbench.runs.run import Run
from seqbench.runs.source_hash import source_hash
from seqbench.tasks.adding import Adding
from seqbench.training import checkpoint

STEPS = 9
SMALL = [
    "task=adding",
    "task.length=12",
    "task.train_size=40",
    "task.eval_size=16",
    "recipe=none",
    f"trainer.steps={STEPS}",
    "trainer.batch_size=8",
    "trainer.log_every=1",
    "trainer.eval_every=4",
    "trainer.checkpoint_every=3",
    "threads=1",
    "device=cpu",
]
TCN = ["model=tcn", "model.channels=[4,4]", "model.kernel_size=3", "model.dropout=0.2"]


def small(output_dir, *overrides, config_dir=None):
    # Without a model among them, the TCN.
    model = [] if any(word.startswith("model=") for word in overrides) else TCN
    return compose([*SMALL, *model, *overrides, f"output_dir={output_dir}"], config_dir)


class Watch(Observer):
    """Counts what it is told, and may do something at an event."""

    def __init__(self, at=None, do=None):
        self.starts, self.events, self.records = [], [], []
        self.at, self.do = at, do

    def started(self, facts):
        self.starts.append(facts)

    def event(self, event):
        self.events.append(event)
        if (event["step"], event["split"]) == self.at:
            self.do()

    def finished(self, record):
        self.records.append(record)


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def left_behind(config, record):
    """Return all that a run writes and that must not differ between two equal runs."""
    folder = Run.of(config)
    everything = record.to_json()
    everything.pop("measured")
    tensors, facts = checkpoint.load(folder.checkpoints / checkpoint.BEST)
    weights = {name: tensor.tolist() for name, tensor in tensors.items()}
    return everything, folder.events_path.read_bytes(), weights, facts


def history(config):
    lines = (Run.of(config).folder / "history.jsonl").read_text().splitlines()
    return [json.loads(line)["event"] for line in lines]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Return a finished run: its config, its record and its observer."""
    config, watch = small(tmp_path_factory.mktemp("done")), Watch()
    return config, run(config, watch), watch


# What a run writes


def test_a_run_writes_what_it_did(done):
    config, record, watch = done
    folder = Run.of(config)
    assert read_record(folder.record_path) == record
    assert read(folder.folder / "config.yaml") == config
    events = [json.loads(line) for line in folder.events_path.read_text().splitlines()]
    assert events == watch.events
    assert [e["step"] for e in events if e["split"] == "train"] == list(range(1, STEPS + 1))
    assert [e["step"] for e in events if e["split"] == "valid"] == [4, 8, STEPS]
    assert history(config) == ["started", "completed"]
    assert "\ncompleted: test MSE " in folder.log_path.read_text()
    assert len(watch.starts) == 1
    assert watch.records == [record]


def test_what_a_record_says(done):
    config, record, watch = done
    assert record.status == "completed"
    assert record.error is None
    assert record.run_id == Run.of(config).run_id
    assert (record.task, record.model, record.seed) == ("adding", "tcn", 0)
    assert (record.budget, record.protocol, record.length) == ("full", "ours", 12)
    assert record.steps == STEPS
    assert record.tokens == STEPS * 8 * 12
    assert record.baseline == build_task(config, build("trainer", config)).baseline
    assert record.source == source_hash(record.config)
    assert record.config == without_environment(config)
    assert record.defaults["trainer"]["watch"] == "valid"
    assert record.defaults["optimizer"]["betas"] == [0.9, 0.999]
    assert record.versions["torch"] == torch.__version__
    assert set(record.data) == {"train", "valid", "test"}
    assert record.notes["solved"] == 0
    scored = record.score
    assert (scored.metric, scored.split, scored.direction) == ("mse", "test", "min")
    assert scored.value == record.metrics["test"]["mse"]
    best = min(e["mse"] for e in watch.events if e["split"] == "valid")
    assert record.metrics["valid"]["mse"] == best
    assert record.measured["threads"] == 1
    assert record.measured["compiled"] == []  # PyTorch runs narrow blocks
    assert record.measured["seconds"] > 0
    assert record.measured["throughput"] > 0
    # Four convolutions with a norm and a bias a channel, one to match the width, the output.
    parameters = (4 * 2 * 3 + 8) + 3 * (4 * 4 * 3 + 8) + (4 * 2 + 4) + (4 + 1)
    assert record.parameters == watch.starts[0]["parameters"] == parameters


def test_a_record_says_which_compiled_layers_were_run(tmp_path):
    wide = small(tmp_path, "model.channels=[12,12]")
    narrow = small(tmp_path, "seed=1")
    expected = ["residual_block"] if kernels.available() else []
    assert run(wide).measured["compiled"] == expected
    assert run(narrow).measured["compiled"] == []


def test_the_test_split_is_read_once_at_the_end(tmp_path):
    asked, batches = [], Adding.eval_batches

    def noting(task, split):
        asked.append(split)
        return batches(task, split)

    with patch.object(Adding, "eval_batches", noting):
        run(small(tmp_path))
    assert asked == ["valid"] * 3 + ["test"]


def test_the_test_score_is_that_of_the_weights_that_validation_chose(tmp_path):
    # At this rate the first evaluation is the best by far.
    config = small(tmp_path, "schedule=step", "optimizer.lr=1e-3", "seed=1")
    with patch("seqbench.training.schedules.Step.after_warmup", lambda self, p: 1e4 * (p > 0.5)):
        watch = Watch()
        record = run(config, watch)
    best, *later = (e["mse"] for e in watch.events if e["split"] == "valid")
    assert min(later) > 100 * best
    assert record.metrics["test"]["mse"] < 100 * best


def test_equal_configurations_give_equal_runs_in_one_process(done, tmp_path):
    """A warm process gives the bits that a fresh one gives."""
    torch.rand(7)
    config = small(tmp_path)
    assert left_behind(config, run(config)) == left_behind(*done[:2])


def test_the_seed_changes_weights_and_order_but_not_the_data(done, tmp_path):
    record = run(small(tmp_path, "seed=1"))
    assert record.data == done[1].data
    assert record.metrics != done[1].metrics
    assert record.run_id != done[1].run_id


def test_the_initial_weights_are_drawn_from_the_seed(tmp_path):
    config = small(tmp_path)
    task = build_task(config, build("trainer", config))
    one, other, again = (
        build_model(config | {"seed": seed}, task.spec).output.weight for seed in (1, 2, 1)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


# What is done is not done again


def test_a_finished_run_is_not_trained_again(done):
    config, record, _ = done
    folder = Run.of(config).folder
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    watch = Watch()
    for retry in (False, True):
        assert run(config, watch, retry=retry) == record
    assert watch.starts == watch.events == []
    assert watch.records == [record, record]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_elsewhere_on_another_device_it_is_the_same_run(done):
    config, record, _ = done
    assert run({**config, "threads": 2, "device": "auto"}) == record


def test_force_runs_it_again_from_the_start(tmp_path):
    config = small(tmp_path)
    first = left_behind(config, run(config))
    watch = Watch()
    assert left_behind(config, run(config, watch, force=True)) == first
    assert watch.events[0]["step"] == 1
    assert history(config) == ["started", "completed"] * 2


@pytest.mark.skipif(not (PROC / "clear_refs").exists(), reason="only Linux can reset a peak")
def test_the_peak_memory_is_of_this_run_and_not_of_one_before_it(tmp_path):
    """The training data of the large run takes 256 MiB, and its making more."""
    peaks = [
        run(small(tmp_path, f"task.train_size={size}", "task.length=1024")).measured[
            "peak_memory_bytes"
        ]
        for size in (8, 2**15, 16)
    ]
    assert peaks[1] > peaks[0] + 2**28
    assert peaks[2] < peaks[1] - 2**27


def test_settings_of_the_process_are_restored(tmp_path):
    def settings():
        return (
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            torch.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(),
            random.getstate(),
            flushes_denormals(),
            os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        )

    torch.set_num_threads(2)
    try:
        before = settings()
        run(small(tmp_path, "threads=1", "trainer.deterministic=true"))
        assert settings() == before
    finally:
        torch.set_num_threads(1)


# Interruptions


@pytest.mark.parametrize("at", [(1, "train"), (4, "valid"), (5, "train"), (7, "train")])
def test_an_interrupted_run_goes_on_to_the_same_end(done, tmp_path, at):
    config = small(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    stop = at[0] + 1  # the loop asks once a step, before it tells what it measured
    with pytest.raises(Interrupted, match=f"interrupted at step {stop} of {STEPS}"):
        run(config, Watch(at, terminate))
    assert signal.getsignal(signal.SIGTERM) is before
    assert Run.of(config).record is None
    watch = Watch()
    assert left_behind(config, run(config, watch)) == left_behind(*done[:2])
    assert watch.starts[0]["step"] == stop
    assert watch.events[0]["step"] == stop + 1
    assert history(config) == ["started", "interrupted", "resumed", "completed"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_other_signals_interrupt_too(tmp_path, number):
    with pytest.raises(Interrupted):
        run(small(tmp_path), Watch((2, "train"), lambda: os.kill(os.getpid(), number)))


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    config = small(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(config, Watch((2, "train"), twice))
    assert not (Run.of(config).checkpoints / checkpoint.LAST).exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_job_that_ignores_ctrl_c_or_the_end_of_its_terminal_is_stopped_by_sigterm(
    tmp_path, number
):
    def both():
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(number, signal.SIG_IGN)
    try:
        with pytest.raises(Interrupted) as stop:
            run(small(tmp_path), Watch((2, "train"), both))
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)
    assert stop.value.signal == signal.SIGTERM


def test_a_resumed_run_keeps_the_threads_that_it_began_with(done, tmp_path):
    config = small(tmp_path)
    with pytest.raises(Interrupted):
        run(config, Watch((5, "train"), terminate))
    threads = []
    watch = Watch((7, "train"), lambda: threads.append(torch.get_num_threads()))
    record = run({**config, "threads": 2}, watch)
    assert threads == [1]
    assert left_behind(config, record) == left_behind(*done[:2])


def test_a_torn_checkpoint_costs_no_more_than_the_steps_since_the_one_before(done, tmp_path):
    config = small(tmp_path)
    with pytest.raises(Interrupted):
        run(config, Watch((5, "train"), terminate))
    last = Run.of(config).checkpoints / checkpoint.LAST
    last.write_bytes(last.read_bytes()[:-10])
    watch = Watch()
    assert left_behind(config, run(config, watch)) == left_behind(*done[:2])
    assert watch.starts[0]["step"] == 3
    assert "going on from the one before" in watch.starts[0]["remark"]


def run_and_die(config):
    run(config, Watch((5, "train"), lambda: os.kill(os.getpid(), signal.SIGKILL)))


def test_a_killed_run_resumes_to_the_same_bits(done, tmp_path):
    config = small(tmp_path)
    killed = forked(run_and_die, config)
    killed.join(120)
    assert killed.exitcode == -signal.SIGKILL
    # Two steps were logged after the last checkpoint; they are taken again.
    assert len(Run.of(config).events_path.read_text().splitlines()) == 6
    watch = Watch()
    assert left_behind(config, run(config, watch)) == left_behind(*done[:2])
    assert watch.starts[0]["step"] == 3
    assert history(config) == ["started", "resumed", "completed"]


# Runs that end other than well


def test_a_diverged_run_is_over_until_it_is_retried(tmp_path):
    config, watch = small(tmp_path, "optimizer=sgd", "optimizer.lr=1e20"), Watch()
    record = run(config, watch)
    assert record.status == "diverged"
    assert record.error.startswith("diverged: ")
    assert (record.score, record.metrics) == (None, {})
    assert run(config, watch) == record
    assert len(watch.starts) == 1
    again = run(config, watch, retry=True)
    assert (again.status, again.error) == (record.status, record.error)
    assert len(watch.starts) == 2
    assert watch.starts[1]["step"] == 0
    assert history(config) == ["started", "diverged"] * 2


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Write a custom model, and return the folder of its config."""
    monkeypatch.syspath_prepend(tmp_path)

    def written(module, source):
        (tmp_path / f"{module}.py").write_text(f"import torch\n{source}")
        folder = tmp_path / "configs"
        (folder / "model").mkdir(parents=True)
        (folder / "model/mine.yaml").write_text(f"_target_: {module}.Mine\n")
        return str(folder)

    return written


FAILING = """
class Mine(torch.nn.Linear):
    calls, allowed = 0, 3

    def __init__(self, spec):
        super().__init__(2, 1)

    def forward(self, x):
        Mine.calls += 1
        if Mine.calls > Mine.allowed:
            raise LookupError("nothing there\\nand much more")
        return super().forward(x)[:, -1]
"""


def test_a_model_that_fails_is_recorded_and_may_be_retried(tmp_path, mine):
    config = small(tmp_path / "out", "model=mine", config_dir=mine("failing_model", FAILING))
    folder = Run.of(config)
    record = run(config)
    assert record == folder.record
    assert (record.status, record.error) == ("failed", "LookupError: nothing there")
    assert record.steps == 3
    assert record.score is None
    log = folder.log_path.read_text()
    assert "Traceback" in log
    assert "and much more" in log

    watch = Watch()
    assert run(config, watch) == record
    assert watch.starts == []
    sys.modules["failing_model"].Mine.allowed = 1000
    assert run(config, watch, retry=True).status == "completed"
    assert watch.starts[0]["step"] == 0
    assert history(config) == ["started", "failed", "started", "completed"]


def test_its_traceback_is_shown_to_who_asks(tmp_path, mine, monkeypatch, capsys):
    config = small(tmp_path / "out", "model=mine", config_dir=mine("failing_too", FAILING))
    run(config)
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.setenv("SEQBENCH_TRACEBACK", "1")
    run(config, retry=True)
    said = capsys.readouterr().err
    assert "in forward" in said
    assert "and much more" in said


def test_a_graph_that_was_asked_for_in_vain_is_told(tmp_path):
    watch = Watch()
    run(small(tmp_path, "trainer.graph=true"), watch)
    assert watch.starts[0]["remark"] == "trainer.graph is for a GPU"


def test_a_model_of_the_users_own(tmp_path, mine):
    source = """
class Mine(torch.nn.Module):
    def __init__(self, spec, width: int = 3, depth: int = 2):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(2, width), torch.nn.Linear(width, 1))

    def forward(self, x):
        return self.layers(x.mean(1))
"""
    folder = mine("own_model", source)
    config = small(tmp_path / "out", "model=mine", "model.width=5", config_dir=folder)
    record = run(config)
    assert (record.status, record.model) == ("completed", "mine")
    assert record.parameters == 2 * 5 + 5 + 5 + 1
    assert record.config["model"]["width"] == 5
    assert record.defaults["model"] == {"depth": 2}
    # At its default an option is no part of the identity, said or not.
    default, said = (
        small(tmp_path / "out", "model=mine", *extra, config_dir=folder)
        for extra in ([], ["model.width=3"])
    )
    assert Run.of(default).run_id == Run.of(said).run_id != record.run_id


WITHOUT_WEIGHTS = """
class Mine(torch.nn.Module):
    def __init__(self, spec):
        super().__init__()
"""


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["device=cuda:99"], "device=cuda:99, but torch sees"),
        (["model.kernel_size=1"], "model.kernel_size must be at least 2, not 1"),
        (["trainer.batch_size=41"], "trainer.batch_size=41 is more than the task's 40"),
        (["trainer.accumulate=3"], "cannot be cut into"),
        (["optimizer.lr=-1"], "optimizer: Invalid learning rate: -1"),
        (["schedule.warmup=2"], "schedule.warmup is a share"),
    ],
)
def test_what_cannot_be_built_leaves_nothing_behind(tmp_path, overrides, said):
    with pytest.raises(ConfigError) as caught:
        run(small(tmp_path / "out", *overrides))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none(tmp_path):
    with pytest.raises(ConfigError, match="device=cuda, but torch sees 0 CUDA devices here"):
        run(small(tmp_path, "device=cuda"))


def test_a_model_without_weights(tmp_path, mine):
    folder = mine("weightless_model", WITHOUT_WEIGHTS)
    with pytest.raises(ConfigError, match="the model has no parameters to train"):
        run(small(tmp_path / "out", "model=mine", config_dir=folder))


def test_a_full_disk_ends_the_attempt_but_not_the_run(done, tmp_path):
    config = small(tmp_path)
    full = OSError(28, "No space left on device")
    save = checkpoint.atomic.write

    def failing(path, content):
        if watch.events and watch.events[-1]["step"] == 6:
            raise full
        save(path, content)

    watch = Watch()
    with (
        patch.object(checkpoint.atomic, "write", failing),
        pytest.raises(RunError, match="No space left on device"),
    ):
        run(config, watch)
    assert Run.of(config).record is None
    assert left_behind(config, run(config)) == left_behind(*done[:2])
