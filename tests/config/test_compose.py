import re
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml
from hydra import compose as hydra_compose
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from seqbench.config.choices import CONFIG_FOLDER, choices_of
from seqbench.config.compose import Composer, build, compose, finish, read
from seqbench.config.overrides import free
from seqbench.errors import ConfigError
from seqbench.runs.run import Run

RNN = {
    "_target_": "seqbench.models.rnn.RNN",
    "_partial_": True,
    "hidden_size": 3,
    "num_layers": 1,
    "dropout": 0.0,
    "embedding_dim": None,
    "tied": False,
}
GLOBAL = "# @package _global_\n"


def write(folder, files):
    """Write YAML files into a config folder, `{"model/mine": {...} or text}`."""
    for name, content in files.items():
        path = folder / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(folder)


def refused(*overrides, config_dir=None):
    """What is said of overrides that are wrong, in one line."""
    with pytest.raises(ConfigError) as caught:
        compose(overrides, config_dir)
    text = str(caught.value)
    assert text
    assert "\n" not in text
    return text


# Precedence


def ours(name):
    return yaml.safe_load((CONFIG_FOLDER / f"{name}.yaml").read_text())


# From low to high; each may set any key of the whole run.
LEVELS = {
    "task/mine": {"task": ours("task/adding")},
    "model/mine": {"model": ours("model/rnn")},
    "trainer/mine": {"trainer": ours("trainer/default")},
    "recipe/mine_mine": {},
    "protocol/mine": {"protocol": "mine"},
    "budget/mine": {"budget": "mine"},
    "budget_for/mine_mine": {},
}
CHOSEN = [f"{group}=mine" for group in ("task", "model", "trainer", "protocol", "budget")]


@pytest.mark.parametrize("highest", range(len(LEVELS)))
def test_each_level_beats_all_below_it(highest, tmp_path):
    files = {}
    for number, (file, content) in enumerate(LEVELS.items(), 1):
        seed = {"seed": number} if number <= highest + 1 else {}
        files[file] = GLOBAL + yaml.safe_dump(content | seed)
    folder = write(tmp_path, files)
    assert compose(CHOSEN, folder)["seed"] == highest + 1
    assert compose([*CHOSEN, "seed=100"], folder)["seed"] == 100


def test_own_recipe_and_budget_are_found_by_the_names_of_own_choices(tmp_path):
    folder = write(
        tmp_path,
        {
            "task/mine": ours("task/adding"),
            "model/mine": RNN,
            "recipe/mine_mine": GLOBAL + "recipe: {source: a guess}\nmodel: {hidden_size: 7}\n",
            "budget/tiny": GLOBAL + "budget: tiny\n",
            "budget_for/mine_tiny": GLOBAL + "task: {length: 5}\n",
        },
    )
    config = compose(["task=mine", "model=mine", "budget=tiny"], folder)
    assert config["model"]["hidden_size"] == 7
    assert config["recipe"] == {"source": "a guess"}
    assert config["task"]["length"] == 5
    assert config["choices"] == {"task": "mine", "model": "mine"}


def test_own_choices_come_before_ours_of_the_same_name(tmp_path):
    folder = write(
        tmp_path,
        {"model/tcn": RNN, "recipe/adding_tcn": GLOBAL + "model: {hidden_size: 9}\n"},
    )
    assert compose(["model=tcn"], folder)["model"] == {**RNN, "hidden_size": 9}


@pytest.mark.parametrize("name", ["a b", "a,b", "a[0]", "a=b", "it's", 'a"b', "a$b", "${b}", "é#"])
def test_a_config_folder_may_have_any_name(name, tmp_path):
    assert compose(["model=mine"], write(tmp_path / name, {"model/mine": RNN}))["model"] == RNN


def test_a_config_folder_that_is_not_there():
    assert refused(config_dir="nowhere") == "no folder of configurations at nowhere"


# Recipes, and the traps of Hydra's defaults lists


@pytest.fixture
def with_recipe(tmp_path):
    return write(
        tmp_path,
        {
            "model/mine": RNN,
            "recipe/adding_mine": GLOBAL
            + yaml.safe_dump(
                {
                    "recipe": {
                        "source": "a test",
                        "optimizer": {
                            "_target_": "torch.optim.Adam",
                            "_partial_": True,
                            "lr": 0.5,
                            "betas": [0.8, 0.9],
                        },
                        "schedule": {
                            "_target_": "seqbench.training.schedules.Cosine",
                            "_partial_": True,
                            "warmup": 0.1,
                            "final": 0.2,
                        },
                    },
                    "trainer": {"clip": 0.25},
                }
            ),
        },
    )


def test_a_recipe_names_optimizer_and_schedule(with_recipe):
    config = compose(["model=mine"], with_recipe)
    assert config["optimizer"]["_target_"] == "torch.optim.Adam"
    assert config["optimizer"]["betas"] == [0.8, 0.9]
    assert config["schedule"]["final"] == 0.2
    assert config["trainer"]["clip"] == 0.25
    assert config["recipe"] == {"source": "a test"}


def test_an_optimizer_on_the_command_line_replaces_the_recipes_whole(with_recipe):
    config = compose(["model=mine", "optimizer=sgd"], with_recipe)
    assert config["optimizer"] == {
        "_target_": "torch.optim.SGD",
        "_partial_": True,
        "lr": 0.1,
        "momentum": 0.0,
    }
    assert config["schedule"]["_target_"].endswith("Cosine")
    assert config["trainer"]["clip"] == 0.25


def test_a_schedule_on_the_command_line_replaces_the_recipes_whole(with_recipe):
    config = compose(["model=mine", "schedule=constant"], with_recipe)
    assert config["schedule"] == {
        "_target_": "seqbench.training.schedules.Constant",
        "_partial_": True,
        "warmup": 0.0,
    }
    assert config["optimizer"]["lr"] == 0.5


def test_single_values_change_the_recipes_optimizer(with_recipe):
    config = compose(
        ["model=mine", "optimizer.lr=0.125", "optimizer.eps=1e-3", "schedule.final=0.5"],
        with_recipe,
    )
    assert config["optimizer"] == {
        "_target_": "torch.optim.Adam",
        "_partial_": True,
        "lr": 0.125,
        "betas": [0.8, 0.9],
        "eps": 1e-3,
    }
    assert (config["schedule"]["warmup"], config["schedule"]["final"]) == (0.1, 0.5)


def test_single_values_change_the_optimizer_chosen_instead(with_recipe):
    config = compose(["model=mine", "optimizer=sgd", "optimizer.momentum=0.5"], with_recipe)
    assert (config["optimizer"]["lr"], config["optimizer"]["momentum"]) == (0.1, 0.5)


def test_without_a_recipe_adam_at_a_constant_rate(with_recipe):
    config = compose(["model=mine", "recipe=none"], with_recipe)
    assert config["recipe"] == {}
    assert config["trainer"]["clip"] is None
    assert config["optimizer"] == ours("optimizer/adam")
    assert config["schedule"] == ours("schedule/constant")


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("model: {hiden_size: 3}", "no key 'model.hiden_size' (did you mean 'model.hidden_size'?)"),
        ("trainer: {clp: 3}", "no key 'trainer.clp' (did you mean 'trainer.clip'?)"),
        ("sed: 3", "no key 'sed' (did you mean 'seed'?)"),
        ('"se\\nd": 3', "no key 'sed' (did you mean 'seed'?)"),
        ("recipe: {optimiser: {}}", "no key 'recipe.optimiser' (did you mean 'recipe.optimizer'?)"),
        ("recipe: 3", "recipe must be dict[str, Any], not 3"),
        ("recipe: {optimizer: adam}", "recipe.optimizer must be a group of values, not 'adam'"),
        (
            "recipe: {optimizer: {_target_: torch.optim.Adam, lrr: 1}}",
            "no key 'optimizer.lrr' (did you mean 'optimizer.lr'?)",
        ),
    ],
)
def test_a_slip_in_a_recipe_costs_one_line(recipe, said, tmp_path):
    folder = write(tmp_path, {"model/mine": RNN, "recipe/adding_mine": f"{GLOBAL}{recipe}\n"})
    assert refused("model=mine", config_dir=folder) == said


def test_a_budget_without_a_file_for_the_task_changes_nothing_else(tmp_path):
    folder = write(tmp_path, {"budget/other": GLOBAL + "budget: other\n"})
    assert compose(["budget=other"], folder) == {**compose(), "budget": "other"}


# What ships with us


@pytest.mark.parametrize("budget", ["quick", "smoke"])
@pytest.mark.parametrize("task", choices_of("task"))
def test_there_is_a_budget_for_each_task(task, budget):
    content = ours(f"budget_for/{task}_{budget}")
    composed = compose([f"task={task}", f"budget={budget}"])
    for node, values in content.items():
        for key, value in values.items():
            assert composed[node][key] == value
    assert "model" not in content  # a budget never changes the model
    if budget == "smoke":
        assert composed["trainer"]["steps"] <= 20


def test_no_budget_is_for_a_task_that_is_not_there():
    pairs = {f"{t}_{b}" for t in choices_of("task") for b in choices_of("budget")}
    assert set(choices_of("budget_for")) <= pairs


PAIRS = {f"{t}_{m}": (t, m) for t in choices_of("task") for m in choices_of("model")}


@pytest.mark.parametrize("name", [name for name in choices_of("recipe") if name != "none"])
def test_each_recipe_is_for_a_real_pair_and_holds_there(name):
    assert name in PAIRS
    task, model = PAIRS[name]
    content = ours(f"recipe/{name}")
    config = compose([f"task={task}", f"model={model}"])
    assert config["optimizer"] == content["recipe"]["optimizer"]
    assert config["schedule"] == content["recipe"]["schedule"]
    assert config["recipe"]["source"]
    for node in content.keys() - {"recipe"}:
        for key, value in content[node].items():
            assert config[node][key] == value


# Near misses


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model=tcm", "no model named 'tcm' (did you mean 'tcn'?)"),
        ("task=ading", "no task named 'ading' (did you mean 'adding'?)"),
        ("schedule=cosin", "no schedule named 'cosin' (did you mean 'cosine'?)"),
        ("budget=qick", "no budget named 'qick' (did you mean 'quick'?)"),
        ("recipe=nne", "no recipe named 'nne' (did you mean 'none'?)"),
        (
            "budget_for=adding_quik",
            "no budget_for named 'adding_quik' (did you mean 'adding_quick'?)",
        ),
        ("modle=tcn", "no key 'modle' (did you mean 'model'?)"),
        ("sed=3", "no key 'sed' (did you mean 'seed'?)"),
        (
            "model.kernel_sise=3",
            "no key 'model.kernel_sise' (did you mean 'model.kernel_size'?)",
        ),
        ("trainer.step=3", "no key 'trainer.step' (did you mean 'trainer.steps'?)"),
        ("optimizer.lrr=3", "no key 'optimizer.lrr' (did you mean 'optimizer.lr'?)"),
        ("schedule.warm=0.1", "no key 'schedule.warm' (did you mean 'schedule.warmup'?)"),
        ("task.lenght=3", "no key 'task.lenght' (did you mean 'task.length'?)"),
        ("task.seed=3", "no key 'task.seed'"),  # the program supplies it
        ("model=null", "model needs a choice: gru, llama, lstm, rnn, tcn"),
        ("~model", "model needs a choice: gru, llama, lstm, rnn, tcn"),
        ("model=NaN", "no model named 'NaN' (there are: gru, llama, lstm, rnn, tcn)"),
        ("~budget", "budget needs a choice: full, quick, smoke"),
        ("budget=1", "no budget named '1' (there are: full, quick, smoke)"),
        ("tracker=null", "tracker needs a choice: mlflow, tensorboard, wandb"),
        ("=5", "expected key=value, got '=5'"),
        ("seed=0,,1", "cannot read seed=0,,1: extraneous input ','"),
        ("output_dir=", "output_dir names no folder"),
        ("data_dir=", "data_dir names no folder"),
        ("~model.dropout", "'model.dropout' is needed by seqbench.models.tcn.TCN"),
        ("~seed", "the configuration has no 'seed'"),
    ],
)
def test_a_slip_costs_one_line(override, said):
    assert refused(override).startswith(said)


def test_a_slip_is_not_blamed_on_another_word():
    for right in ("~optimizer", "~schedule", "model=tcn", "optimizer=sgd"):
        assert refused(right, "trainer.stepss=3").startswith("no key 'trainer.stepss'")


def test_a_model_of_the_users_is_among_those_one_may_have_meant(tmp_path):
    folder = write(tmp_path, {"model/resonator": RNN})
    said = refused("model=resonatr", config_dir=folder)
    assert said == "no model named 'resonatr' (did you mean 'resonator'?)"
    assert "resonator" in refused("model=1", config_dir=folder)


# Types


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trainer.steps=abc", "trainer.steps must be int or null, not 'abc'"),
        ("trainer.steps=1.5", "trainer.steps must be int or null, not 1.5"),
        ("trainer.steps=true", "trainer.steps must be int or null, not True"),
        ("trainer.batch_size=null", "trainer.batch_size must be int, not None"),
        ("trainer.clip=false", "trainer.clip must be float or null, not False"),
        ("trainer.compile=1", "trainer.compile must be bool, not 1"),
        ("trainer.precision=fp8", "trainer.precision must be one of fp32, bf16, fp16, not 'fp8'"),
        ("task.markers=here", "task.markers must be one of anywhere, one_per_half, not 'here'"),
        ("task.length='600'", "task.length must be int, not '600'"),
        ("task.length=1e3", "task.length must be int, not 1000.0"),
        ("model.channels=8", "model.channels must be"),
        ("model.channels=[8,x]", "model.channels must be"),
        ("model.channels=[8,8.5]", "model.channels must be"),
        ("model.channels=[8,true]", "model.channels must be"),
        ("model.channels=abc", "model.channels must be"),
        ("optimizer.betas=[0.9]", "optimizer.betas must be a list of 2 float, not [0.9]"),
        ("seed=true", "seed must be int, not True"),
        ("protocol_for=typo", "no protocol_for named 'typo'"),
        ("seed=-1", "seed must be in [0, 2^63), not -1"),
        (f"seed={2**63}", f"seed must be in [0, 2^63), not {2**63}"),
        ("threads=0", "threads must be 1 to 1024, not 0"),
        ("device=3", "device must be str, not 3"),
        ("device=quantum", "device must be auto, cpu, cuda or cuda:N, not 'quantum'"),
        ("device=cpu:1", "device must be auto, cpu, cuda or cuda:N, not 'cpu:1'"),
        ("device=cuda:007", "device must be auto, cpu, cuda or cuda:N, not 'cuda:007'"),
        ("device=cuda:200", "device must be auto, cpu, cuda or cuda:N, not 'cuda:200'"),
        ("dropout=0.5", "no key 'dropout' (did you mean 'model.dropout'?)"),
        ("_target_=x", "no key '_target_' (there are"),
        ("optimizer.lr=inf", "optimizer.lr must be something JSON can say, not inf"),
        ("model.dropout=nan", "model.dropout must be something JSON can say, not nan"),
        ("task._target_=sys", "task._target_: sys cannot be built"),
        ("task._target_=3", "task must be a group of values with a _target_"),
    ],
)
def test_a_value_of_the_wrong_type_costs_one_line(override, said):
    assert refused(override).startswith(said)


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
def test_a_value_that_fits_is_taken(override, value):
    config = compose([override])
    for key in override.split("=")[0].split("."):
        config = config[key]
    assert config == value
    assert type(config) is type(value)


def test_a_wrong_target_is_one_line_and_nothing_beside_it(capfd):
    assert refused("model._target_=seqbench.models.nothing.Here").startswith(
        "model._target_: cannot import seqbench.models.nothing.Here"
    )
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", r".*mine\.yaml, line 2: expected the node content"),
        ("a: 1\na: 2", r".*mine\.yaml, line 2: found duplicate key a"),
        ("!!python/object/apply:os.getcwd []", r".*mine\.yaml, line 1: could not determine"),
        ("a: &a [*a]", "maximum recursion depth"),
        ("- a", r"model must be a group of values with a _target_, not \['a'\]"),
        ("just text", "model must be a group of values with a _target_"),
        ("", "model must be a group of values with a _target_"),
        ("x: ???", "Missing mandatory value: x"),
        ("defaults: [nothing]", "In 'model/mine': Could not load 'model/nothing'"),
        ("# @package elsewhere\na: 1", "no key 'elsewhere'"),
        ("_target_: torch.nn.GRU\nbias: .nan", "model.bias must be something JSON can say"),
        ("_target_: torch.nn.GRU\nbias: {1: 2, a: 3}", "model.bias must be something JSON can"),
    ],
)
def test_a_file_of_the_users_that_is_wrong_costs_one_line(text, said, tmp_path):
    folder = write(tmp_path, {"model/mine": text + "\n"})
    assert re.match(said, refused("model=mine", config_dir=folder))


@pytest.mark.parametrize("group", ["optimizer", "schedule"])
def test_a_choice_of_the_users_that_is_no_group_costs_one_line(group, tmp_path):
    folder = write(tmp_path, {f"{group}/mine": "- a\n"})
    said = refused(f"{group}=mine", config_dir=folder)
    assert said == f"{group} must be a group of values, not ['a']"


@pytest.mark.parametrize(
    "override",
    [
        "seed=${nothing}",
        "seed=${seed}",
        "seed=${oc.env:SEQBENCH_NOT_SET}",
        "seed=${oc.env:PATH}",
        "task.length=${seed",
        "~task",
        "~trainer",
        "trainer=null",
        "task=",
        "model=[lstm,gru]",
        "seed=1,2",
        "seed=range(3)",
        "seed",
        "=",
        "=3",
        "+",
        "++=3",
        "~~",
        "a b",
        "a=b=c",
        "model@here=tcn",
        "task/adding",
        "\x00",
        "seed=\x00",
        "é=3",
        "recipe.optimizer=3",
        "recipe={a:1}",
        "optimizer={lr:1}",
        "hydra=null",
        "hydra.nothing=1",
        "hydra.runtime=3",
        "hydra.runtime.choices=null",
        "task._target_=builtins.dict",
    ],
)
def test_a_malformed_override_costs_one_line(override):
    refused(override)


NAMES = ["seed", "task", "model", "optimizer", "recipe", "budget", "trainer.steps", "model.dropout"]
WORDS = ["null", "", "3", "tcn", "[1,2]", "{a:1}", "${seed}", "${", "1e400", "???", "sys", "a,b"]
overrides = st.one_of(
    st.text(max_size=20),
    st.builds(
        "{}{}={}".format,
        st.sampled_from(["", "+", "++", "~"]),
        st.sampled_from([*NAMES, "hydra.runtime", "model._target_", "recipe.schedule"]),
        st.sampled_from(WORDS) | st.text(max_size=8),
    ),
)


@settings(deadline=None, max_examples=120, derandomize=True)
@given(st.lists(overrides, min_size=1, max_size=2))
def test_any_text_is_a_configuration_or_one_line(texts):
    try:
        config = compose(texts)
    except ConfigError as error:
        said = str(error)
    else:
        said = Run.of(config).run_id  # it is good enough to name a run
    assert said
    assert "\n" not in said


# Steps or epochs


@pytest.mark.parametrize(
    ("overrides", "steps", "epochs"),
    [
        ([], None, 10),
        (["trainer.steps=7"], 7, None),
        (["trainer.epochs=2"], None, 2),
        (["budget=quick"], 5000, None),
        (["budget=quick", "trainer.epochs=2.5"], None, 2.5),
        (["budget=smoke", "trainer.steps=7"], 7, None),
    ],
)
def test_steps_take_the_place_of_epochs_and_epochs_of_steps(overrides, steps, epochs):
    trainer = compose(["task=adding", "model=tcn", "recipe=none", *overrides])["trainer"]
    assert (trainer["steps"], trainer["epochs"]) == (steps, epochs)


@pytest.mark.parametrize("both", [["=3", "=4"], ["=null", "=null"]])
def test_not_both_and_not_neither(both):
    config = compose([f"trainer.steps{both[0]}", f"trainer.epochs{both[1]}"])
    with pytest.raises(ConfigError, match=r"give one of trainer\.steps and trainer\.epochs"):
        build("trainer", config)


# The user's own code


def test_types_that_cannot_be_looked_up_are_not_checked(tmp_path, monkeypatch):
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


# What came with a run folder


@cache
def of_char_file():
    return compose(["model=lstm", "task=char_file"])


def saved(tmp_path, **nodes):
    """A run folder's configuration, with some nodes changed."""
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({**of_char_file(), **nodes}))
    return path


def test_what_a_run_keeps_reads_back(tmp_path):
    config = compose(["model=llama", "task=copy", "optimizer=adamw", "schedule=step"])
    run = Run(tmp_path, "0" * 12)
    run.write_config(config)
    assert read(tmp_path / "config.yaml") == config


# Importing or calling any of these leaves a trace: the file `pwned` in the current folder.
EVIL = "open('pwned', 'w').close()\ndef call(*args, **kwargs): open('pwned', 'w').close()\n"


@pytest.mark.parametrize(
    "hostile",
    [
        {"_target_": "os.system", "command": "touch pwned"},
        {"_target_": "torch.optim.optimizer.torch.os.system", "command": "touch pwned"},
        {"_target_": "seqbench.machine.os.system", "command": "touch pwned"},
        {"_target_": "seqbench.training.state.random.os.system", "command": "touch pwned"},
        {"_target_": "builtins.eval", "_args_": ["open('pwned', 'w')"]},
        {"_target_": "evil_module.call"},
        {"_target_": "evil_module"},
        {"_target_": "seqbench.config.compose.get_object", "path": "evil_module"},
        {"_target_": "seqbench.config.schema.located", "target": "evil_module", "name": "x"},
        {"_target_": "seqbench.cli.main.main"},
        {"_target_": "seqbench_evil.Model"},
        {"_target_": "torch.optimal.Model"},
        {"_target_": "torch.optim"},
        {"_target_": "torch.optim.Nothing"},
        {"_target_": ""},
        {"_target_": ["os.system"]},
        {"_target_": {"_target_": "os.system"}},
    ],
)
@pytest.mark.parametrize(
    "place",
    [
        lambda hostile: {"schedule": hostile},
        lambda hostile: {
            "optimizer": {"_target_": "torch.optim.Optimizer", "defaults": {"a": hostile}}
        },
        lambda hostile: {"recipe": {"expected": [1, [{"a": hostile}]]}},
    ],
)
def test_hostile_code_in_a_run_folder_is_refused_and_not_run(place, hostile, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil_module.py").write_text(EVIL)
    (tmp_path / "seqbench_evil.py").write_text(EVIL)
    with pytest.raises(ConfigError) as caught:
        read(saved(tmp_path, **place(hostile)))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "pwned").exists()
    assert "evil_module" not in sys.modules


@pytest.mark.parametrize(
    "text",
    [
        "${oc.env:HOME}",
        "a/${oc.env:HOME}/b",
        "${oc.create:{_target_:evil_module.call}}",
        '${oc.decode:"{_target_: evil_module.call}"}',
        "${seed}",
    ],
)
def test_interpolations_in_a_run_folder_are_not_resolved(text, tmp_path, monkeypatch):
    # Hydra resolves strings when it builds what they are arguments of.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil_module.py").write_text(EVIL)
    task = {**of_char_file()["task"], "path": text}
    with pytest.raises(ConfigError, match="refers to something outside"):
        build("task", read(saved(tmp_path, task=task)), batch_size=1, seed=0, data_dir=None)
    assert not (tmp_path / "pwned").exists()


def test_the_users_word_lets_a_run_name_other_code(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "trusted_by_name.py").write_text("class Model: ...\n")
    path = saved(tmp_path, model={"_target_": "trusted_by_name.Model"})
    with pytest.raises(ConfigError, match=r"--trust trusted_by_name\.Model"):
        read(path)
    for named in ("trusted_by_name", "trusted_by_name.Model"):
        assert read(path, [named])["model"] == {"_target_": "trusted_by_name.Model"}
    with pytest.raises(ConfigError, match="--trust"):
        read(path, ["trusted_by"])  # a prefix of the name is another name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a",
        "text",
        "a: [",
        "a: &a [*a]",
        "[" * 700,
        "!!python/object/apply:os.system ['touch pwned']",
        "seed: 0",
        b"\xff\xfe",
    ],
)
def test_a_run_folder_with_another_file_in_its_place(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path("config.yaml")
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["config.yaml"]


def test_a_run_folder_without_a_configuration(tmp_path):
    with pytest.raises(ConfigError, match="there is no"):
        read(tmp_path / "config.yaml")


VALUES = st.sampled_from(
    [
        *("seed=3", "optimizer.lr=0.01", "trainer.steps=7", "trainer.epochs=2", "task.length=30"),
        *("model.dropout=0.5", "data_dir=x", "recipe.source=mine", "trainer.clip=null"),
        *("output_dir=${protocol}/y", "+optimizer.maximize=true"),
    ]
)
CHOICES = st.tuples(
    st.sampled_from(["model=tcn", "model=lstm", "model=llama"]),
    st.sampled_from(["task=adding", "task=copy"]),
    st.sampled_from(["budget=quick", "optimizer=sgd", "schedule=cosine"]),
)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(CHOICES, st.lists(VALUES, unique=True, max_size=4)), max_size=2))
def test_what_a_composer_keeps_changes_nothing(cases):
    """Against Hydra itself, which composes each from its files."""
    with Composer() as composer:
        for choices, values in cases:
            overrides = [*choices, *values]
            whole = hydra_compose("train", free(overrides), return_hydra_config=True)
            chosen = dict(whole.hydra.runtime.choices)
            OmegaConf.set_struct(whole, False)
            whole.pop("hydra")
            assert composer.compose(overrides) == finish(whole, chosen)


@pytest.mark.parametrize(
    ("word", "given"),
    [
        ("output_dir=résultats (v2), x", "résultats (v2), x"),
        ("output_dir=it's", "it's"),
        ("output_dir='a b'", "a b"),
        ("++output_dir=a=b", "a=b"),
        ("data_dir=null", None),
        ("data_dir=[old]", "[old]"),
        ("output_dir=~/runs", str(Path("~/runs").expanduser())),
    ],
)
def test_a_path_is_what_it_says(word, given):
    config = compose([word])
    assert config[word.lstrip("+").partition("=")[0]] == given


@pytest.mark.parametrize("name", ["한국어.txt", "a(1).txt", "naïve text.txt", "~x.txt"])
def test_a_text_may_be_called_anything(tmp_path, name):
    path = tmp_path / name
    path.write_text("abc " * 100, encoding="utf-8")
    config = compose(["task=char_file", f"task.path={path}"])
    assert config["task"]["path"] == str(path)
    assert config["task"]["sha256"]
