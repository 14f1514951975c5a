"""The contracts hold for ours, and each is broken by what it is there to find."""

import math
import sys
from types import SimpleNamespace

import pytest
import torch
import typer
from torch import nn
from typer.testing import CliRunner

from seqbench.cli.check import check
from seqbench.configuration import build, choices_of, read_choice
from seqbench.contracts import check_model, check_task
from seqbench.errors import ConfigError, DataError
from seqbench.spec import Classes, SequenceSpec, Tokens
from seqbench.tasks.adding import Adding
from seqbench.tasks.task import Batch

SHAPE = "answers in the shape the task asks for"
CAUSAL = "does not see the future"
GRADIENTS = "is trained in all its parameters"
STATE_DICT = "is saved whole in its state_dict"
SEED = "is fixed by the seed"
SEGMENTS = "answers the same in segments, if it carries a state"


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def broken(results):
    """The messages of the contracts that do not hold, by name."""
    return {result.name: result.message for result in results if not result.passed}


@pytest.mark.parametrize("name", choices_of("model"))
def test_our_models_hold_every_contract(name):
    results = list(
        check_model(lambda spec: build("model", {"model": read_choice("model", name)}, spec))
    )
    assert len(results) == 7
    assert broken(results) == {}
    assert results[0].message == ""  # and take every kind of task


class Running(nn.Module):
    """A causal model to break: a linear layer, a running mean, a linear layer."""

    def __init__(self, spec):
        super().__init__()
        if isinstance(spec.input, Tokens):
            raise ConfigError("not for tokens")
        self.every = spec.readout == "every"
        self.first = nn.Linear(spec.input.dim, 8)
        self.last = nn.Linear(8, spec.output_dim)

    def forward(self, x):
        h = self.first(x).tanh()
        steps = torch.arange(1, x.shape[1] + 1)[:, None]
        outputs = self.last(h.cumsum(1) / steps)
        return outputs if self.every else outputs[:, -1]


class Clairvoyant(Running):
    def forward(self, x):
        outputs = super().forward(x)
        return (
            outputs + 1e-3 * x.flip(1).cumsum(1).flip(1).mean(-1, True) if self.every else outputs
        )


class NormalisedOverTime(Running):
    def forward(self, x):
        return super().forward((x - x.mean(1, True)) / x.std(1, keepdim=True))


class AlwaysEvery(Running):
    def __init__(self, spec):
        super().__init__(spec)
        self.every = True


class NotFinite(Running):
    def forward(self, x):
        return super().forward(x) / 0


class Unused(Running):
    def __init__(self, spec):
        super().__init__(spec)
        self.forgotten = nn.Linear(3, 3)


class CutOff(Running):
    def forward(self, x):
        h = self.first(x).tanh().detach()
        return self.last(h if self.every else h[:, -1])


class Unregistered(Running):
    def __init__(self, spec):
        super().__init__(spec)
        self.hidden = [nn.Linear(spec.input.dim, spec.input.dim)]

    def forward(self, x):
        return super().forward(self.hidden[0](x))


class OwnSeed(Running):
    def __init__(self, spec):
        super().__init__(spec)
        self.first.weight.data.normal_(generator=torch.Generator().manual_seed(torch.seed()))


class NoisyInEvaluation(Running):
    def forward(self, x):
        return super().forward(nn.functional.dropout(x, 0.1, training=True))


class WritesToInput(Running):
    def forward(self, x):
        return super().forward(x.mul_(0.5))


class Carrying(Running):
    """As `Running`, with the sum and the number of steps so far as its state."""

    carry_state = True

    def forward(self, x, state=None):
        h = self.first(x).tanh()
        total, count = (h.new_zeros(len(h), 8), h.new_zeros(len(h), 1)) if state is None else state
        totals = h.cumsum(1) + total[:, None]
        counts = torch.arange(1, x.shape[1] + 1)[:, None] + count[:, None]
        outputs = self.last(totals / counts)
        return (outputs if self.every else outputs[:, -1]), (totals[:, -1], counts[:, -1])


class Forgetful(Carrying):
    def forward(self, x, state=None):
        return super().forward(x)


class BatchSecond(Carrying):
    def forward(self, x, state=None):
        state = None if state is None else (state[0][0], state[1][0])
        output, state = super().forward(x, state)
        return output, (state[0][None], state[1][None])


class DictState(Carrying):
    def forward(self, x, state=None):
        state = None if state is None else (state["sum"], state["count"])
        output, state = super().forward(x, state)
        return output, {"sum": state[0], "count": state[1]}


class StateForgotten(Running):
    carry_state = True

    def forward(self, x, state=None):
        return super().forward(x)


class Undeclared(Carrying):
    def __getattribute__(self, name):
        if name == "carry_state":
            raise AttributeError(name)
        return super().__getattribute__(name)


@pytest.mark.parametrize("model", [Running, Carrying])
def test_the_models_that_are_broken_below_hold_whole(model):
    results = list(check_model(model))
    assert broken(results) == {}
    assert "not for 4 of 8 kinds of task" in results[0].message
    assert "not for tokens" in results[0].message


@pytest.mark.parametrize(
    ("model", "contract", "message"),
    [
        (Clairvoyant, CAUSAL, "sees the future: the output at step 0 moved by"),
        (NormalisedOverTime, CAUSAL, "sees the future"),
        (AlwaysEvery, SHAPE, r"readout last: the output is (3, 37, 11), not (3, 11)"),
        (NotFinite, SHAPE, "not finite"),
        (Unused, GRADIENTS, "no gradient reaches forgotten.weight, forgotten.bias"),
        (CutOff, GRADIENTS, "no gradient reaches first.weight, first.bias"),
        (Unregistered, STATE_DICT, "not registered"),
        (OwnSeed, SEED, "first.weight starts differently"),
        (NoisyInEvaluation, SEED, "the same input twice gives different outputs"),
        (WritesToInput, SEED, "writes to its input"),
        (Forgetful, SEGMENTS, "differ by"),
        (BatchSecond, SEGMENTS, "the first dimension of the state's tensors must be the batch"),
        (DictState, SEGMENTS, "here is a dict"),
        (StateForgotten, SEGMENTS, "must return (output, state)"),
        (Undeclared, SHAPE, "needs an attribute carry_state"),
    ],
)
def test_a_broken_model_is_told_what_it_breaks(model, contract, message):
    assert message in broken(check_model(model))[contract]


def test_a_zero_gate_at_the_start_is_no_dead_parameter():
    class Gate(Running):
        def __init__(self, spec):
            super().__init__(spec)
            nn.init.zeros_(self.last.weight)

    assert broken(check_model(Gate)) == {}


def test_a_model_that_cannot_be_built_is_one_result():
    def fails(spec):
        raise AttributeError("no vocab_size")

    def refuses(spec):
        raise ConfigError("model.hidden_size must be at least 1")

    (result,) = check_model(fails)
    assert "raised AttributeError: no vocab_size" in result.message
    assert "ConfigError" in result.message
    (result,) = check_model(refuses)
    assert "refuses every kind of task: model.hidden_size" in result.message


# --- tasks ----------------------------------------------------------------------------------------

SMALL = {"length": 12, "markers": "anywhere", "train_size": 96, "eval_size": 40, "data_seed": 0}


def small(task=Adding):
    return lambda seed: task(**SMALL, batch_size=8, seed=seed, data_dir=None)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("adding", {"length": 20, "train_size": 200, "eval_size": 50}),
        ("adding", {"length": 20, "train_size": 200, "eval_size": 50, "markers": "one_per_half"}),
        ("copy", {"length": 5, "train_size": 200, "eval_size": 50}),
        ("copy", {"length": 5, "train_size": 200, "eval_size": 50, "input": "tokens"}),
        ("char_markov", {"train_size": 5000, "eval_size": 1000, "length": 40, "context": 10}),
    ],
)
def test_our_tasks_hold_every_contract(name, values):
    node = read_choice("task", name) | values
    results = list(
        check_task(
            lambda seed: build("task", {"task": node}, batch_size=8, seed=seed, data_dir=None)
        )
    )
    assert len(results) == 7
    assert broken(results) == {}


def test_tasks_on_real_data_hold_every_contract(real_data):
    for name, values in {
        "smnist": {"train_size": 2000, "eval_size": 500},
        "char_shakespeare": {"train_size": 50_000, "eval_size": 5000},
    }.items():
        node = read_choice("task", name) | values
        results = check_task(
            lambda seed: build(
                "task",
                {"task": node},  # noqa: B023
                batch_size=8,
                seed=seed,
                data_dir=str(real_data),
            )
        )
        assert broken(results) == {}, name


class Unmeasured(Adding):
    baseline = math.nan


class WorseThanBaseline(Adding):
    optimum = 1.0


class OtherMetric(Adding):
    def metrics(self, outputs, batch):
        return {"mean squared": super().metrics(outputs, batch)["mse"]}


class OtherWidth(Adding):
    def encode(self, inputs):
        return inputs[..., :1]


class OtherLength(Adding):
    def encode(self, inputs):
        return inputs[:, 1:]


class WrongToken(Adding):
    def __init__(self, **values):
        super().__init__(**values)
        self.spec = SequenceSpec(Tokens(10), Classes(1), "last", 12)

    def encode(self, inputs):
        return (inputs[..., 0] * 11).round().long()


class FewTargets(Adding):
    def eval_batches(self, split):
        for batch in super().eval_batches(split):
            yield Batch(batch.inputs, batch.targets[1:])


class NoSplit(Adding):
    def eval_batches(self, split):
        return iter([])


class MidText(Adding):
    def eval_batches(self, split):
        for batch in super().eval_batches(split):
            yield Batch(batch.inputs, batch.targets, fresh=False)


class ConstantLoss(Adding):
    def loss(self, outputs, batch):
        return 0 * outputs.sum()


class LossPerSequence(Adding):
    def loss(self, outputs, batch):
        return (outputs - batch.targets).square().flatten()


class Stateful(Adding):
    calls = 0

    def train_batch(self, step):
        self.calls += 1
        return super().train_batch(self.calls)


class GlobalRandom(Adding):
    def train_batch(self, step):
        chosen = torch.randint(96, (8,))
        inputs, targets = self.splits["train"]
        return Batch(inputs[chosen], targets[chosen])


class OneBatch(Adding):
    def train_batch(self, step):
        return super().train_batch(0)


class SeededSplits(Adding):
    def __init__(self, *, data_seed, seed, **values):
        super().__init__(**values, data_seed=seed, seed=seed)


class ShuffledEvaluation(Adding):
    def eval_batches(self, split):
        inputs, targets = self.splits[split]
        order = torch.randperm(len(inputs))
        yield Batch(inputs[order], targets[order])


class Leaky(Adding):
    def __init__(self, **values):
        super().__init__(**values)
        inputs, targets = self.splits["train"]
        self.splits["test"] = inputs[10:20], targets[10:20]


@pytest.mark.parametrize(
    ("task", "contract", "message"),
    [
        (Unmeasured, "says what it is", "baseline is nan"),
        (WorseThanBaseline, "says what it is", "optimum 1.0 is no better than baseline"),
        (OtherMetric, "scores outputs", "primary is mse, but metrics are mean squared"),
        (OtherWidth, "gives batches", "(8, 12, 1) float32, not (batch, time, 2)"),
        (OtherLength, "gives batches", "training has 11 steps, not 12"),
        (WrongToken, "gives batches", "tokens outside 0 to 9"),
        (FewTargets, "gives batches", "40 inputs and 39 targets"),
        (NoSplit, "gives batches", "valid has no batches"),
        (MidText, "gives batches", "the first batch of valid goes on from one"),
        (ConstantLoss, "scores outputs", "no gradient"),
        (LossPerSequence, "scores outputs", "the loss of random outputs is (8,)"),
        (Stateful, "draws a batch", "asked for twice gives two batches"),
        (GlobalRandom, "draws a batch", "asked for twice gives two batches"),
        (OneBatch, "draws a batch", "every step has the same batch"),
        (SeededSplits, "has fixed", "valid is not the same with another seed"),
        (ShuffledEvaluation, "has fixed", "valid is not the same read twice"),
        (Leaky, "keeps its splits apart", "10 of the 10 sequences of test are in train too"),
    ],
)
def test_a_broken_task_is_told_what_it_breaks(task, contract, message):
    found = broken(check_task(small(task)))
    (name,) = [name for name in found if name.startswith(contract)]
    assert message in found[name]


def test_a_task_that_refuses_or_lacks_its_data_says_so_itself():
    def lacks(seed):
        raise DataError("fetch it first")

    with pytest.raises(DataError, match="fetch it first"):
        list(check_task(lacks))
    with pytest.raises(ConfigError, match=r"task\.length"):
        list(
            check_task(
                lambda seed: Adding(**SMALL | {"length": 1}, batch_size=8, seed=seed, data_dir=None)
            )
        )


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Runs `seqbench check` in a folder that holds a person's own models."""
    app = typer.Typer()
    app.command()(check)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    sys.modules.pop("own_models", None)
    (tmp_path / "own_models.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "class Mean(nn.Module):\n"
        "    def __init__(self, spec, width, ahead=False):\n"
        "        super().__init__()\n"
        "        self.every, self.ahead = spec.readout == 'every', ahead\n"
        "        if not hasattr(spec.input, 'dim'):\n"
        "            raise ValueError('features only')\n"
        "        self.first = nn.Linear(spec.input.dim, width)\n"
        "        self.last = nn.Linear(width, spec.output_dim)\n"
        "    def forward(self, x):\n"
        "        h = self.first(x).tanh().cumsum(1)\n"
        "        outputs = self.last(h.flip(1) if self.ahead else h)\n"
        "        return outputs if self.every else outputs[:, -1]\n"
        "def function(spec): ...\n"
        "class Other: ...\n"
    )
    (tmp_path / "json.py").write_text("class Model: ...\n")

    def run(*words):
        result = CliRunner().invoke(app, list(words))
        error = result.exception if isinstance(result.exception, ConfigError) else None
        if error is None and result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return SimpleNamespace(code=result.exit_code, out=result.output, error=str(error))

    return run


@pytest.mark.parametrize(
    "target", ["own_models.Mean", "own_models.py:Mean", "./own_models.py:Mean"]
)
def test_check_ticks_a_persons_own_model(command, target):
    result = command(target, "width=6")
    assert result.code == 0
    lines = result.out.splitlines()
    assert len(lines) == 7
    assert all(line.startswith("✓ ") for line in lines)
    assert "features only" in lines[0]


def test_check_crosses_a_broken_one_and_exits_with_1(command):
    result = command("own_models.py:Mean", "width=6", "ahead=true")
    assert result.code == 1
    (line,) = [line for line in result.out.splitlines() if line.startswith("✗")]
    assert line.startswith(f"✗ {CAUSAL}: ")


def test_check_takes_our_names_and_values(command):
    assert command("rnn", "hidden_size=5").code == 0
    result = command("adding", "length=10", "train_size=64", "eval_size=20")
    assert result.code == 0
    assert result.out.count("✓") == 7


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tcm"], "no model or task named 'tcm' (did you mean 'tcn'?)"),
        (["tcn", "kernel=3"], "no key 'model.kernel' (did you mean 'model.kernel_size'?)"),
        (["tcn", "kernel_size=x"], "model.kernel_size must be int, not 'x'"),
        (["tcn", "kernel_size"], "give values as key=value, not 'kernel_size'"),
        (["tcn", "channels=[1"], "the value of 'channels=[1' is not YAML"),
        (["own_models.py:Mean"], "'model.width' is needed by own_models.Mean and has no value"),
        (["own_models.Maen"], "own_models has no class 'Maen' (did you mean 'Mean'?)"),
        (["own_models.function"], "own_models has no class 'function'"),
        (["own_models.Other"], "own_models.Other is neither a torch.nn.Module nor a Task"),
        (["own_modles.py:Mean"], "there is no Python file 'own_modles.py'"),
        (["no_such_package.Model"], "cannot import no_such_package: No module named"),
        (["json.py:Model"], "another module is named 'json' too: rename json.py"),
    ],
)
def test_check_says_in_a_line_what_is_wrong(command, words, message):
    result = command(*words)
    assert message in result.error
    assert "\n" not in result.error
