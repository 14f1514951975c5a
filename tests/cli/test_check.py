"""Test `seqbench check` on custom models and on packaged ones."""

import sys
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from seqbench.cli.check import check
from seqbench.errors import ConfigError


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Return a function that runs `seqbench check` in a folder with custom models."""
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
        "class Mistaken(Mean):\n"
        "    def __init__(self, spec):\n"
        "        super().__init__(spec, 4)\n"
        "        self.every and self.forgotten\n"
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
    assert len(lines) == 9
    # No state, no context to skip, no lengths.
    assert [line[0] for line in lines] == ["✓"] * 6 + ["-"] * 3
    assert "features only" in lines[0]
    assert "the model has no state" in lines[6]


def test_check_crosses_a_broken_one_and_exits_with_1(command):
    result = command("own_models.py:Mean", "width=6", "ahead=true")
    assert result.code == 1
    (line,) = [line for line in result.out.splitlines() if line.startswith("✗")]
    assert line.startswith("✗ is causal: ")


def test_a_mistake_in_a_constructor_is_no_refusal(command):
    result = command("own_models.py:Mistaken")
    assert result.code == 1
    (line,) = result.out.splitlines()
    assert line.startswith(
        "✗ can be built: Features to Classes, readout every: raised AttributeErr"
    )
    assert "(own_models.py:18)" in line


def test_check_takes_our_names_and_values(command):
    assert command("rnn", "hidden_size=5").code == 0
    assert command("rnn", "model.hidden_size=5").code == 0
    result = command("adding", "length=10", "train_size=64", "eval_size=20")
    assert result.code == 0
    assert result.out.count("✓") == 8


def test_check_takes_the_choices_of_a_persons_own_folder(command, tmp_path):
    (tmp_path / "mine" / "model").mkdir(parents=True)
    node = "_target_: own_models.Mean\n_partial_: true\nwidth: 6\n"
    (tmp_path / "mine" / "model" / "mean.yaml").write_text(node)
    (tmp_path / "mine" / "model" / "ahead.yaml").write_text("defaults: [mean]\nahead: true\n")
    assert command("mean", "--config-dir", "mine").code == 0
    assert "no key 'model.wdth'" in command("mean", "wdth=6", "--config-dir", "mine").error
    assert "✗ is causal" in command("ahead", "--config-dir", "mine").out
    assert command("meen", "--config-dir", "mine").error.endswith("(did you mean 'mean'?)")
    (tmp_path / "mine" / "model" / "mean.yaml").write_text(node.replace("6", "???"))
    assert command("mean", "width=6", "--config-dir", "mine").code == 0
    assert "'model.width' is needed" in command("mean", "--config-dir", "mine").error
    for target in ("mean", "own_models.py:Mean"):
        said = command(target, "--config-dir", "nosuch").error
        assert said == "no folder of configurations at nosuch"
    assert command("mean").error.startswith("no model or task named 'mean'")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tcm"], "no model or task named 'tcm' (did you mean 'tcn'?)"),
        (["tcn", "kernel=3"], "no key 'model.kernel' (did you mean 'model.kernel_size'?)"),
        (["tcn", "kernel_size=x"], "model.kernel_size must be int, not 'x'"),
        (["tcn", "kernel_size"], "expected KEY=VALUE, got 'kernel_size'"),
        (["tcn", "channels=[1"], "expected a YAML value after =, got 'channels=[1'"),
        (["own_models.py:Mean"], "'model.width' is needed by own_models.Mean and has no value"),
        (["own_models.Maen"], "own_models has no class 'Maen' (did you mean 'Mean'?)"),
        (["own_models.function"], "own_models has no class 'function'"),
        (["own_models.Other"], "or seqbench's Task, got own_models.Other"),
        (["own_models.py"], "append the class, as in own_models.py:MyModel"),
        (["own_modles.py:Mean"], "own_modles.py is not there"),
        (["no_such_package.Model"], "cannot import no_such_package: No module named"),
        (["json.py:Model"], "the name of another module is also 'json': rename json.py"),
    ],
)
def test_check_says_in_a_line_what_is_wrong(command, words, message):
    result = command(*words)
    assert message in result.error
    assert "\n" not in result.error
