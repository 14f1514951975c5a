"""A captured step is the step. Without a GPU a tape stands in for the graph, see `tape.py`."""

import json
import signal
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from tape import capture

from seqbench import kernels
from seqbench.bench.flops import step_flops
from seqbench.bench.loop import Loop, time_split
from seqbench.bench.measure import Spread, time_alternately
from seqbench.bench.reference import plain_loop
from seqbench.config.compose import compose
from seqbench.errors import ConfigError, Interrupted, RunError
from seqbench.experiment import run
from seqbench.experiment.build import Experiment
from seqbench.experiment.seeds import run_seeds
from seqbench.models.tcn import TCN
from seqbench.runs.observer import Observer
from seqbench.runs.run import Run
from seqbench.tasks.task import Batch
from seqbench.training import checkpoint, graph

SMALL = ["budget=smoke", "threads=1", "trainer.steps=14", "trainer.eval_every=5", "recipe=none"]
NET = ["model=tcn", "model.channels=[6,6,6]", "model.kernel_size=3"]
LLAMA = ["model=llama", "model.dim=16", "model.hidden_dim=24"]
LLAMA += ["model.num_heads=2", "model.num_layers=2"]
CASES = {
    "at the last step": [*NET, "task=adding", "optimizer=adam", "trainer.clip=0.05"],
    "dropout": [*NET, "task=copy", "model.dropout=0.5", "optimizer=sgd", "optimizer.momentum=0.9"],
    "in parts": [*NET, "task=adding", "trainer.accumulate=2", "schedule=cosine"],
    "bf16": [*NET, "task=adding", "trainer.precision=bf16", "schedule.warmup=0.5"],
    "a state": ["model=lstm", "model.hidden_size=6", "task=char_markov", "schedule=cosine"],
    "gru": ["model=gru", "model.hidden_size=6", "task=adding", "model.dropout=0.2"],
    "a cache": [*LLAMA, "task=char_markov", "model.carry_state=true", "optimizer=adamw"],
    "plateau": [*LLAMA, "task=adding", "schedule=plateau", "schedule.patience=0"],
    "windows": [*NET, "task=char_markov", "task.context=8", "trainer.clip=0.1"],
}
# Dropout is drawn otherwise for seeds together.
SEEDS = ["model.dropout=0"]


@pytest.fixture
def taped(monkeypatch):
    """Capture steps on a CPU, and return a list of the captures."""
    found = []

    def noted(call):
        found.append(call)
        return capture(call)

    monkeypatch.setattr("seqbench.experiment.build.can_capture", lambda device: True)
    monkeypatch.setattr(graph, "on_capture_stream", lambda call: call())
    monkeypatch.setattr(graph, "capture", noted)
    # A tape does not see into compiled operators, nor recompute what torch's LSTM saves.
    with kernels.disabled(), torch.backends.mkldnn.flags(enabled=False):
        yield found


@pytest.fixture
def a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")


def composed(case, folder, *more):
    return compose([*SMALL, *CASES[case], "device=cpu", *more, f"output_dir={folder}"])


def left_by(config):
    """Return a run's events, and weights, slots and random states of its last checkpoint."""
    tensors, _ = checkpoint.load(Run.of(config).checkpoints / checkpoint.LAST)
    events = list(map(json.loads, Run.of(config).events_path.read_text().splitlines()))
    return tensors, events


def cut_at(step, config, monkeypatch):
    """Run until a signal comes in a step."""
    asked = iter(range(1, 99))

    @contextmanager
    def signals():
        yield lambda: signal.SIGTERM if next(asked) == step else 0

    with monkeypatch.context() as patch:
        patch.setattr("seqbench.experiment.single.signals", signals)
        with pytest.raises(Interrupted):
            run(config)


def assert_same(one, other):
    for name, tensor in one[0].items():
        assert torch.equal(tensor, other[0][name]), name
    assert one[1] == other[1]


@pytest.mark.parametrize("case", CASES)
def test_a_captured_step_is_the_step(case, tmp_path, taped, monkeypatch):
    config = composed(case, tmp_path / "captured", "trainer.graph=true")
    record = run(config)
    assert record.status == "completed"
    assert record.measured["cuda_graph"]
    assert taped
    with monkeypatch.context() as patch:
        patch.setattr(graph, "MOST_GRAPHS", 0)
        again = composed(case, tmp_path / "steps", "trainer.graph=true")
        captured = len(taped)
        run(again)
    assert len(taped) == captured
    assert_same(left_by(config), left_by(again))
    # Without graphs a learning rate is a number of double precision.
    plain = composed(case, tmp_path / "plain")
    assert "cuda_graph" not in run(plain).measured
    for mine, theirs in zip(left_by(config)[1], left_by(plain)[1], strict=True):
        assert mine.pop("split") == theirs.pop("split")
        assert mine == pytest.approx(theirs, rel=1e-3 if case == "bf16" else 1e-5)


def test_what_python_decides_is_decided_once(tmp_path, taped, monkeypatch):
    """The tape can tell: a learning rate that is a number would stay that of the capture."""
    monkeypatch.setattr("seqbench.training.graph.rates_to_device", lambda optimizer: None)
    config = composed("in parts", tmp_path / "a", "trainer.graph=true")
    other = composed("in parts", tmp_path / "b")
    run(config), run(other)
    with pytest.raises(AssertionError):
        assert_same(left_by(config), left_by(other))


@pytest.mark.parametrize("case", ["at the last step", "dropout", "a state"])
def test_cut_and_continued_it_ends_the_same(case, tmp_path, taped, monkeypatch):
    whole = composed(case, tmp_path / "whole", "trainer.graph=true")
    run(whole)
    config = composed(case, tmp_path / "cut", "trainer.graph=true")
    cut_at(7, config, monkeypatch)
    run(config)
    assert_same(left_by(whole), left_by(config))


def loop_of(config):
    return Loop.of(Experiment(config))


def test_there_is_a_graph_for_each_form(tmp_path, taped):
    config = composed("a state", tmp_path, "trainer.graph=true", "task.train_size=2400")
    loop = loop_of(config)
    assert loop.task.steps_per_epoch == 3
    loop.run_steps(4), loop.run_steps(5)  # a text begins at the first, fourth and seventh
    assert len(taped) == 2


def test_a_batch_of_a_users_own_kind_goes_in_whole():
    @dataclass(frozen=True)
    class Weighted(Batch):
        weights: torch.Tensor | None = None
        name: str = ""

    x, y = torch.zeros(2, 3), torch.zeros(2)
    batch = Weighted(x, y, weights=torch.ones(2), name="a")
    assert graph.inputs([batch], (x, (y,))).keys() == {
        *("0.inputs", "0.targets", "0.weights", "carried.0", "carried.1.0")
    }
    same = Weighted(x + 1, y, weights=torch.zeros(2), name="a")
    assert graph.signature_of([batch], None) == graph.signature_of([same], None)
    for other in (
        Weighted(x, y, weights=torch.ones(2), name="b"),
        Weighted(x, y, name="a"),
        Weighted(x, y, weights=torch.ones(3), name="a"),
        Weighted(x, y, weights=torch.ones(2).double(), name="a"),
        Weighted(x, y, weights=torch.ones(2), name="a", fresh=False),
    ):
        assert graph.signature_of([batch], None) != graph.signature_of([other], None)
    assert graph.signature_of([batch], None) != graph.signature_of([batch], (x,))
    nested = Weighted(x, y, name=(x,))
    with pytest.raises(RunError, match="but its name is of type tuple"):
        graph.signature_of([nested], None)


def test_forms_without_end_are_neither_captured_nor_counted(monkeypatch):
    monkeypatch.setattr(graph, "MOST_SIGNATURES", 3)
    monkeypatch.setattr(graph, "on_capture_stream", lambda call: call())
    graphs = graph.Graphs(torch.optim.Adam([torch.nn.Parameter(torch.zeros(2))]))
    for size in range(1, 9):
        batch = Batch(torch.zeros(size, 2), torch.zeros(size))
        assert graphs.take(lambda batches, _: len(batches[0].inputs), [batch], None) == size
    assert len(graphs.seen) == 3
    assert not graphs.captured


def test_a_step_that_waits_for_the_device_cannot_be_captured(tmp_path, taped, monkeypatch):
    whole = TCN.forward

    def waits(self, x, state=None, context=0):
        y, _ = whole(self, x, state, context)
        assert y.sum().item() < 1e9
        return y, None

    monkeypatch.setattr(TCN, "forward", waits)
    run(composed("at the last step", tmp_path))
    with pytest.raises(RunError, match=r"captured as a CUDA graph: operation .*; trainer.graph=f"):
        run(composed("at the last step", tmp_path, "trainer.graph=true"), force=True)


def test_what_failed_a_capture_is_told_and_not_what_came_of_it(monkeypatch):
    def fails(cause):
        try:
            raise cause
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")

    batch = Batch(torch.zeros(1, 2), torch.zeros(1))
    monkeypatch.setattr(graph, "capture", lambda call: fails(ValueError("a reason\nand more")))
    with pytest.raises(RunError, match=r"as a CUDA graph: a reason; trainer\.graph=false"):
        graph.Captured(lambda *_: None, [batch], None)
    monkeypatch.setattr(graph, "capture", lambda call: fails(torch.OutOfMemoryError()))
    with pytest.raises(torch.OutOfMemoryError):
        graph.Captured(lambda *_: None, [batch], None)


def test_an_optimizer_that_asks_is_told_of_a_capture():
    weight = torch.nn.Parameter(torch.zeros(2))
    adam, sgd = torch.optim.Adam([weight]), torch.optim.SGD([weight], 0.1)
    with graph.capturable(adam), graph.capturable(sgd):
        assert adam.param_groups[0]["capturable"]
        assert "capturable" not in sgd.param_groups[0]
    assert not adam.param_groups[0]["capturable"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trainer.compile=true"], "trainer.graph does not go together with trainer.compile"),
        (["trainer.precision=fp16"], "does not go together with trainer.precision=fp16"),
        (["optimizer=rmsprop"], "trainer.graph needs adam, adamw or sgd, fused, and not RMSprop"),
    ],
)
def test_what_cannot_be_captured_is_refused(words, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        run(composed("at the last step", tmp_path, "trainer.graph=true", *words))


def test_on_a_cpu_nothing_is_captured_and_the_run_is_the_same(tmp_path):
    config = composed("at the last step", tmp_path, "trainer.graph=true")
    assert Run.of(config).run_id == Run.of(composed("at the last step", tmp_path)).run_id
    loop = loop_of(config)
    loop.run_steps(5)
    assert isinstance(loop.state.optimizer.param_groups[0]["lr"], float)


def test_what_looks_into_a_step_takes_it_apart(taped):
    config = compose([*SMALL, *CASES["at the last step"], "device=cpu", "trainer.graph=true"])
    loop = loop_of(config)
    split = time_split(loop, 5)
    assert min(split[part] for part in ("forward", "backward", "optimizer")) > 0.01
    flops, _ = step_flops(loop)
    assert flops > 1000
    assert not taped
    loop.run_steps(5)
    assert taped
    assert len(plain_loop(config, loop.device).run_steps(2)) == 2


@pytest.mark.parametrize("case", ["at the last step", "windows"])
def test_seeds_as_one_model_can_be_captured(case, tmp_path, taped):
    more = [*SEEDS, "trainer.graph=true"]
    config = composed(case, tmp_path / "captured", *more)
    records = run_seeds([config | {"seed": seed} for seed in (0, 1)], lambda *_: Observer())
    assert [record.status for record in records] == ["completed"] * 2
    assert taped
    for seed in (0, 1):
        plain = composed(case, tmp_path / "plain", *SEEDS) | {"seed": seed}
        run(plain)
        for mine, theirs in zip(
            left_by(config | {"seed": seed})[1], left_by(plain)[1], strict=True
        ):
            assert mine.pop("split") == theirs.pop("split")
            assert mine == pytest.approx(theirs, rel=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES)
def test_on_a_gpu(case, tmp_path, a_gpu):
    found = []
    for name in ("true", "false"):
        words = [f"trainer.graph={name}", "trainer.deterministic=true", "device=cuda"]
        config = composed(case, tmp_path / name, *words)
        assert run(config).status == "completed"
        found.append(left_by(config)[1])
    for mine, theirs in zip(*found, strict=True):
        assert mine.pop("split") == theirs.pop("split")
        assert mine == pytest.approx(theirs, rel=1e-2 if case == "bf16" else 1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("case", ["at the last step", "dropout", "a state"])
def test_on_a_gpu_cut_and_continued_it_ends_the_same(case, tmp_path, a_gpu, monkeypatch):
    words = ["trainer.graph=true", "trainer.deterministic=true", "device=cuda"]
    whole, config = (composed(case, tmp_path / name, *words) for name in ("whole", "cut"))
    run(whole)
    cut_at(7, config, monkeypatch)
    run(config)
    assert_same(left_by(whole), left_by(config))


@pytest.mark.gpu
def test_on_a_gpu_seeds_as_one_model_are_the_seeds(tmp_path, a_gpu):
    words = [*SEEDS, "trainer.graph=true", "device=cuda"]
    config, alone = (composed("windows", tmp_path / name, *words) for name in ("one", "alone"))
    run_seeds([config | {"seed": seed} for seed in (0, 1)], lambda *_: Observer())
    for seed in (0, 1):
        run(alone | {"seed": seed})
        both = (left_by(one | {"seed": seed})[1] for one in (config, alone))
        for mine, theirs in zip(*both, strict=True):
            assert mine.pop("split") == theirs.pop("split")
            assert mine == pytest.approx(theirs, rel=1e-3)


@pytest.mark.gpu
def test_on_a_gpu_a_captured_step_is_faster(a_gpu):
    words = ["model=tcn", "task=adding", "device=cuda", "task.train_size=3200"]
    plain, captured = (loop_of(compose([*words, f"trainer.graph={g}"])) for g in ("false", "true"))
    assert Spread.of(time_alternately(captured, plain).ratios).median > 1.5


def test_models_that_read_one_length_after_the_other_are_refused(tmp_path, monkeypatch):
    (tmp_path / "graph_custom.py").write_text(
        "from torch import nn\n\n"
        "class Last(nn.Module):\n"
        "    def __init__(self, spec):\n"
        "        super().__init__()\n"
        "        self.linear = nn.Linear(spec.input.dim, spec.output_dim)\n\n"
        "    def forward(self, x):\n"
        "        return self.linear(x[:, -1])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    x, lengths = np.random.RandomState(0).randn(20, 9, 1), np.arange(20) % 5 + 3
    x[3, 0] = np.nan
    np.savez(tmp_path / "my.npz", x=x, y=np.arange(20) % 2, lengths=lengths)
    words = ["task=classify_file", f"task.path={tmp_path / 'my.npz'}", "task.missing=mask"]
    words += ["trainer.graph=true", "trainer.steps=2", "trainer.batch_size=4", "threads=1"]
    said = r"trainer\.graph: graph_custom\.Last reads sequences of different length .*graph=false$"
    with pytest.raises(ConfigError, match=said):
        Experiment(compose(["model=graph_custom.Last", *words]))
    Experiment(compose(["model=gru", "model.hidden_size=4", *words]))
