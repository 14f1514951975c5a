import pytest
from choice_files import RNN, write

from seqbench.config.build import build
from seqbench.config.compose import compose
from seqbench.config.schema import with_defaults
from seqbench.errors import ConfigError
from seqbench.runs.identity import run_id

MODELS = "dlinear, gru, llama, lstm, nlinear, rnn, tcn, tcn_attention, transformer_xl"
DEVICE = "device must be auto, cpu, cuda or cuda:N, not"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model=tcm", "no model named 'tcm' (did you mean 'tcn'?)"),
        ("tracker=[wandb,wandbb]", "no tracker named 'wandbb' (did you mean 'wandb'?)"),
        ("recipe=nne", "no recipe named 'nne' (did you mean 'none'?)"),
        ("budget_for=adding_quik", "no budget_for named 'adding_quik' (did you mean 'adding_qui"),
        ("protocol_for=typo", "no protocol_for named 'typo'"),
        ("sed=3", "no key 'sed' (did you mean 'seed'?)"),
        ("model.kernel_sise=3", "no key 'model.kernel_sise' (did you mean 'model.kernel_size'?)"),
        ("optimizer.lrr=3", "no key 'optimizer.lrr' (did you mean 'optimizer.lr'?)"),
        ("task.seed=3", "no key 'task.seed'"),  # seqbench supplies it
        ("dropout=0.5", "no key 'dropout' (did you mean 'model.dropout'?)"),
        ("_target_=x", "no key '_target_' (there are"),
        ("model=null", f"model needs a choice: {MODELS}"),
        ("~model", f"model needs a choice: {MODELS}"),
        ("model=NaN", f"no model named 'NaN' (there are: {MODELS})"),
        ("~budget", "budget needs a choice: full, quick, smoke"),
        ("budget=1", "no budget named '1' (there are: full, quick, smoke)"),
        ("tracker=null", "tracker needs a choice: mlflow, tensorboard, wandb"),
        ("=5", "expected key=value, got '=5'"),
        ("seed=0,,1", "cannot read seed=0,,1: extraneous input ','"),
        ("seed=0,1", "a run takes one seed, not '0,1': 'seqbench sweep' takes several"),
        ("launch=local", "hydra/launcher is for a sweep: 'seqbench sweep'"),
        ("optimizer.lr=interval(0,1)", "optimizer.lr=interval(0,1) is for a search"),
        ("output_dir=", "expected output_dir=FOLDER, got an empty value"),
        ("~model.dropout", "'model.dropout' is needed by seqbench.models.tcn.TCN"),
        ("~seed", "the configuration has no 'seed'"),
        ("trainer.steps=1.5", "trainer.steps must be int or null, not 1.5"),
        ("trainer.steps=true", "trainer.steps must be int or null, not True"),
        ("trainer.batch_size=null", "trainer.batch_size must be int, not None"),
        ("trainer.clip=false", "trainer.clip must be float or null, not False"),
        ("trainer.compile=1", "trainer.compile must be bool, not 1"),
        ("trainer.precision=fp8", "trainer.precision must be one of fp32, bf16, fp16, not 'fp8'"),
        ("task.markers=here", "task.markers must be one of anywhere, one_per_half, not 'here'"),
        ("task.length='600'", "task.length must be int, not '600'"),
        ("task.length=1.5e0", "task.length must be int, not 1.5"),
        ("model.channels=[8,x]", "model.channels must be"),
        ("model.channels=[8,true]", "model.channels must be"),
        ("optimizer.betas=[0.9]", "optimizer.betas must be a list of 2 float, not [0.9]"),
        ("seed=true", "seed must be int, not True"),
        ("seed=-1", "seed must be in [0, 2^63), not -1"),
        (f"seed={2**63}", f"seed must be in [0, 2^63), not {2**63}"),
        ("threads=0", "threads must be 1 to 1024, not 0"),
        ("device=3", "device must be str, not 3"),
        ("device=quantum", f"{DEVICE} 'quantum'"),
        ("device=cpu:1", f"{DEVICE} 'cpu:1'"),
        ("device=cuda:007", f"{DEVICE} 'cuda:007'"),
        ("device=cuda:200", f"{DEVICE} 'cuda:200'"),
        ("optimizer.lr=inf", "optimizer.lr must be JSON-serializable, not inf"),
        ("model.dropout=nan", "model.dropout must be JSON-serializable, not nan"),
        ("task._target_=sys", "task._target_: sys cannot be built"),
        ("task._target_=3", "task must be a group of values with a _target_"),
    ],
)
def test_a_slip_costs_one_line(refused, override, said):
    assert refused(override).startswith(said)


def test_a_slip_is_not_blamed_on_another_word(refused):
    for right in ("~optimizer", "~schedule", "model=tcn", "optimizer=sgd"):
        assert refused(right, "trainer.stepss=3").startswith("no key 'trainer.stepss'")


def test_a_model_of_the_user_is_suggested(refused, tmp_path):
    folder = write(tmp_path, {"model/resonator": RNN})
    said = refused("model=resonatr", config_dir=folder)
    assert said == "no model named 'resonatr' (did you mean 'resonator'?)"
    assert "resonator" in refused("model=1", config_dir=folder)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("trainer.clip=1", 1),
        ("trainer.clip=null", None),
        ("model.channels=[8,4]", [8, 4]),
        ("optimizer.betas=[0,0.5]", [0, 0.5]),
        ("task.length=1_000", 1000),
        ("trainer.deterministic=true", True),
        ("seed=${task.length}", 600),
    ],
)
def test_a_value_that_fits_is_taken(composer, override, value):
    config = composer.compose([override])
    for key in override.split("=")[0].split("."):
        config = config[key]
    assert config == value
    assert type(config) is type(value)


def test_a_wrong_target_is_one_line_and_prints_nothing(refused, capfd):
    assert refused("model._target_=seqbench.models.nothing.Here").startswith(
        "model._target_: cannot import seqbench.models.nothing.Here"
    )
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_with_defaults_names_every_option_and_the_run_stays_the_same(composer):
    config = composer.compose(["model=lstm", "task=smnist"])
    shown = with_defaults(config)
    assert (shown["trainer"]["watch"], shown["task"]["shuffle"]) == ("valid", True)
    assert shown["task"]["valid_size"] == 5000
    assert shown["optimizer"]["eps"] == 1e-8
    assert not {"seed", "batch_size", "data_dir"} & shown["task"].keys()
    assert "params" not in shown["optimizer"]
    assert "fused" not in shown["optimizer"]  # chosen by the machine
    assert run_id(shown) == run_id(config)


def test_types_that_cannot_be_looked_up_are_not_checked(refused, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "annotated_for_checkers.py").write_text(
        "from __future__ import annotations\n"
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n"
        "    from seqbench.spec import SequenceSpec\n"
        "class Model:\n"
        "    def __init__(self, spec: SequenceSpec, width: int) -> None: ...\n"
    )
    mine = {"_target_": "annotated_for_checkers.Model", "width": 3}
    folder = write(tmp_path / "configs", {"model/mine": mine})
    assert compose(["model=mine"], folder)["model"] == mine
    assert refused("model=mine", "model.wdth=3", config_dir=folder) == (
        "no key 'model.wdth' (did you mean 'model.width'?)"
    )


def test_what_a_constructor_refuses_is_one_line(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "refusing.py").write_text(
        "class Model:\n    def __init__(self, spec): raise ValueError('too deep\\nand more')\n"
    )
    folder = write(tmp_path / "configs", {"model/mine": {"_target_": "refusing.Model"}})
    with pytest.raises(ConfigError) as caught:
        build("model", compose(["model=mine"], folder), None)
    assert str(caught.value) == "model: too deep"


def test_whole_floats_are_ints_where_ints_are_taken(composer, refused):
    words = ["trainer.steps=1e4", "seed=1e2", "threads=2.0", "model.channels=[1e1,5]"]
    config = composer.compose([*words, "optimizer.lr=1e0", "trainer.clip=2e0"])
    found = [config["trainer"]["steps"], config["seed"], config["threads"]]
    found += config["model"]["channels"]
    assert found == [10_000, 100, 2, 10, 5]
    assert {type(value) for value in found} == {int}
    assert type(config["optimizer"]["lr"]) is type(config["trainer"]["clip"]) is float
    plain = ["trainer.steps=10000", "seed=100", "model.channels=[10,5]"]
    assert run_id(config) == run_id(
        composer.compose([*plain, "optimizer.lr=1e0", "trainer.clip=2e0"])
    )
    assert refused("trainer.steps=1.5e0") == "trainer.steps must be int or null, not 1.5"
    assert refused("trainer.steps=1e400") == "trainer.steps must be int or null, not inf"
    assert refused("model.channels=[1e0,2.5]").startswith("model.channels must be a list of int")
    assert refused("seed=0.5") == "seed must be int, not 0.5"
