import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from choice_files import GLOBAL, RNN, shipped, write
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from seqbench.config.build import build
from seqbench.config.choices import CONFIG_FOLDER, choices_of
from seqbench.config.compose import Composer, compose
from seqbench.config.overrides import for_hydra
from seqbench.errors import ConfigError
from seqbench.runs.run import Run

# Precedence, and the user's folder


def test_each_level_wins_over_all_below_it(tmp_path):
    files = {
        "task/mine": {"task": shipped("task/adding")},
        "model/mine": {"model": RNN},
        "trainer/mine": {"trainer": shipped("trainer/default")},
        "recipe/mine_mine": {},
        "protocol/mine": {"protocol": "mine"},
        "budget/mine": {"budget": "mine"},
        "budget_for/mine_mine": {},
    }
    # Level n sets the keys n and above: key n keeps the value of level n.
    for level, (name, content) in enumerate(files.items()):
        mark = {str(key): level for key in range(level, len(files))}
        files[name] = GLOBAL + yaml.safe_dump(content | {"recipe": {"expected": mark}})
    words = [f"{group}=mine" for group in ("task", "model", "trainer", "protocol", "budget")]
    config = compose([*words, "recipe.expected.5=100"], write(tmp_path, files))
    expected = {str(level): level for level in range(len(files))} | {"5": 100}
    assert config["recipe"]["expected"] == expected


def test_the_users_choices_find_their_recipe_and_budget_by_name(tmp_path):
    folder = write(
        tmp_path,
        {
            "task/mine": shipped("task/adding"),
            "model/mine": {"defaults": ["small", "_self_"], "hidden_size": 5, "num_layers": 2},
            "model/small": RNN,
            "recipe/mine_mine": GLOBAL + "recipe: {source: a guess}\nmodel: {hidden_size: 7}\n",
            "budget/tiny": GLOBAL + "budget: tiny\n",
            "budget_for/mine_tiny": GLOBAL + "task: {length: 5}\n",
        },
    )
    config = compose(["task=mine.yaml", "model=mine", "budget=tiny"], folder)
    assert config["model"] == {**RNN, "hidden_size": 7, "num_layers": 2}
    assert config["recipe"] == {"source": "a guess"}
    assert config["task"]["length"] == 5
    assert config["choices"] == {"task": "mine", "model": "mine"}


def test_the_users_choices_hide_those_of_the_same_name(tmp_path):
    files = {"model/tcn": RNN, "recipe/adding_tcn": GLOBAL + "model: {hidden_size: 9}\n"}
    config = compose(["model=tcn"], write(tmp_path, files))
    assert config["model"] == {**RNN, "hidden_size": 9}


@pytest.mark.parametrize("name", ["a b", "a,b", "a[0]", "a=b", "it's", 'a"b', "a$b", "${b}", "é#"])
def test_a_config_folder_may_have_any_name(name, tmp_path):
    assert compose(["model=mine"], write(tmp_path / name, {"model/mine": RNN}))["model"] == RNN


def test_a_config_folder_that_does_not_exist():
    with pytest.raises(ConfigError, match=r"^no folder of configurations at nowhere$"):
        compose([], "nowhere")


def test_a_file_that_ends_in_yml_is_named(tmp_path, refused):
    write(tmp_path, {"model/mine": RNN})
    (tmp_path / "model/mine.yaml").rename(tmp_path / "model/mine.yml")
    for word in ("model=mine", "model=mine.yml"):
        said = refused(word, config_dir=str(tmp_path))
        assert said == f"{tmp_path}/model/mine.yml is not read: rename it to mine.yaml"


def test_the_suffix_of_a_choice_does_not_count(composer):
    assert composer.compose(["task=copy.yaml"]) == composer.compose(["task=copy"])
    assert for_hydra(["model=tcn.yaml,lstm.yaml", "tracker=[wandb.yaml,mlflow]"]) == [
        "model=tcn,lstm",
        "tracker=[wandb,mlflow]",
    ]


# Recipes


@pytest.fixture
def with_recipe(tmp_path):
    adam = {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 0.5, "betas": [0.8, 0.9]}
    cosine = {"_target_": "seqbench.training.schedules.Cosine", "_partial_": True}
    recipe = {
        "recipe": {
            "source": "a test",
            "optimizer": adam,
            "schedule": cosine | {"warmup": 0.1, "final": 0.2},
        },
        "trainer": {"clip": 0.25},
    }
    files = {"model/mine": RNN, "recipe/adding_mine": GLOBAL + yaml.safe_dump(recipe)}
    return Composer(write(tmp_path, files))


def test_a_recipe_names_optimizer_and_schedule(with_recipe):
    config = with_recipe.compose(["model=mine"])
    assert config["optimizer"]["betas"] == [0.8, 0.9]
    assert config["schedule"]["final"] == 0.2
    assert config["trainer"]["clip"] == 0.25
    assert config["recipe"] == {"source": "a test"}
    bare = with_recipe.compose(["model=mine", "recipe=none"])
    assert bare["recipe"] == {}
    assert bare["trainer"]["clip"] is None
    assert bare["optimizer"] == shipped("optimizer/adam")
    assert bare["schedule"] == shipped("schedule/constant")


def test_a_choice_replaces_the_recipes_node_and_values_change_it(with_recipe):
    for other, kept, group in (
        ("sgd", "schedule", "optimizer"),
        ("constant", "optimizer", "schedule"),
    ):
        config = with_recipe.compose(["model=mine", f"{group}={other}"])
        assert config[group] == shipped(f"{group}/{other}")
        assert config[kept] == with_recipe.compose(["model=mine"])[kept]
    words = ["optimizer.lr=0.125", "optimizer.eps=1e-3", "schedule.final=0.5"]
    config = with_recipe.compose(["model=mine", *words])
    assert config["optimizer"] == {
        "_target_": "torch.optim.Adam",
        "_partial_": True,
        "lr": 0.125,
        "betas": [0.8, 0.9],
        "eps": 1e-3,
    }
    assert (config["schedule"]["warmup"], config["schedule"]["final"]) == (0.1, 0.5)
    chosen = with_recipe.compose(["model=mine", "optimizer=sgd", "optimizer.momentum=0.5"])
    assert (chosen["optimizer"]["lr"], chosen["optimizer"]["momentum"]) == (0.1, 0.5)


def test_a_budget_without_a_file_for_the_task_changes_nothing_else(tmp_path, composer):
    folder = write(tmp_path, {"budget/other": GLOBAL + "budget: other\n"})
    assert compose(["budget=other"], folder) == {**composer.compose([]), "budget": "other"}


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
def test_steps_take_the_place_of_epochs_and_epochs_of_steps(composer, overrides, steps, epochs):
    trainer = composer.compose(["recipe=none", *overrides])["trainer"]
    assert (trainer["steps"], trainer["epochs"]) == (steps, epochs)


@pytest.mark.parametrize("both", [["=3", "=4"], ["=null", "=null"]])
def test_not_both_and_not_neither(composer, both):
    config = composer.compose([f"trainer.steps{both[0]}", f"trainer.epochs{both[1]}"])
    with pytest.raises(ConfigError, match=r"give one of trainer\.steps and trainer\.epochs"):
        build("trainer", config)


# Against Hydra itself, which composes each config from its files


@pytest.mark.parametrize(
    "words",
    [
        ["model=llama", "task=copy", "budget=quick", "optimizer=sgd", "data_dir=x", "seed=3"],
        ["model=llama", "task=copy", "budget=quick", "optimizer=sgd", "trainer.epochs=2"],
        ["task=smnist", "protocol=code", "model.dropout=0.5", "~model.kernel_size"],
        ["protocol=paper", "tracker=[wandb,mlflow]", "output_dir=${protocol}/y"],
        ["+optimizer.maximize=true", "recipe.source=mine", "recipe=none", "trainer.clip=null"],
        ["+extra.x=1", "~recipe", "schedule=cosine", "schedule.final=${optimizer.lr}"],
        ["model=mine", "+extra.a.b=[1,{c:2}]", "model.width=1e-3"],
    ],
)
def test_hydra_composes_the_same(composer, words, tmp_path):
    composer = composer if "model=mine" not in words else None
    if composer is None:
        inherits = "defaults: [/model/tcn, _self_]\nwidth: 1e-3\nday: 2026-01-01\n"
        composer = Composer(write(tmp_path, {"model/mine": inherits}))
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        path = f"hydra.searchpath=[file://{tmp_path}]"
        whole = hydra_compose("train", [path, *for_hydra(words, str(tmp_path))])
    tree, _ = composer.composed(words)
    assert OmegaConf.to_container(tree) == OmegaConf.to_container(whole)


HOST = """
import sys, hydra, yaml
from hydra.core.hydra_config import HydraConfig
from seqbench.config.compose import compose

@hydra.main(config_path=None, version_base=None)
def main(config):
    made = compose(["model=mine", "task=copy"], sys.argv[0].removesuffix("host.py") + "own")
    assert hydra.core.global_hydra.GlobalHydra.instance().is_initialized()
    assert HydraConfig.get().job.name == "host"
    print(yaml.safe_dump([made["model"], made["choices"], config.x]))

main()
"""


def test_compose_works_inside_another_hydra_application(tmp_path):
    write(tmp_path / "own", {"model/mine": RNN})
    (tmp_path / "host.py").write_text(HOST)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "host.py"), "+x=3"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout) == [RNN, {"task": "copy", "model": "mine"}, 3]


def test_compose_works_in_several_threads_at_once(composer):
    cases = [
        [f"model={m}", f"task={t}", "seed=7"] for m in choices_of("model") for t in ("adding",)
    ]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(compose, cases * 2))
    assert found == [composer.compose(words) for words in cases] * 2


# Anything that a user may type


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
def test_a_path_is_what_it_says(composer, word, given):
    assert composer.compose([word])[word.lstrip("+").partition("=")[0]] == given


@pytest.mark.parametrize("name", ["한국어.txt", "a(1).txt", "naïve text.txt", "~x.txt"])
def test_a_text_may_have_any_name(composer, tmp_path, name):
    path = tmp_path / name
    path.write_text("abc " * 100, encoding="utf-8")
    task = composer.compose(["task=char_file", f"task.path={path}"])["task"]
    assert task["path"] == str(path)
    assert task["sha256"]


@pytest.mark.parametrize(
    "override",
    [
        *("seed=${nothing}", "seed=${seed}", "seed=${oc.env:SEQBENCH_NOT_SET}"),
        *("seed=${oc.env:PATH}", "task.length=${seed", "~task", "~trainer", "trainer=null"),
        *("task=", "model=[lstm,gru]", "seed=1,2", "seed=range(3)", "seed", "=", "=3", "+"),
        *("++=3", "~~", "a b", "a=b=c", "model@here=tcn", "task/adding", "\x00", "seed=\x00"),
        *("é=3", "recipe.optimizer=3", "recipe={a:1}", "optimizer={lr:1}", "hydra=null"),
        *("hydra.job.chdir=true", "hydra/launcher=local", "task._target_=builtins.dict"),
        *("model={off:1}", "model.dropout={1:2}", "+search_space=tcn", "model=tcn,lstm"),
    ],
)
def test_a_malformed_override_costs_one_line(refused, override):
    refused(override)


NAMES = ["seed", "task", "model", "optimizer", "recipe", "budget", "trainer.steps", "model.dropout"]
NAMES += ["hydra.runtime", "model._target_", "recipe.schedule"]
WORDS = ["null", "", "3", "tcn", "[1,2]", "{a:1}", "${seed}", "${", "1e400", "???", "sys", "a,b"]
overrides = st.one_of(
    st.text(max_size=20),
    st.builds(
        "{}{}={}".format,
        st.sampled_from(["", "+", "++", "~"]),
        st.sampled_from(NAMES),
        st.sampled_from(WORDS) | st.text(max_size=8),
    ),
)


@settings(max_examples=120)
@given(st.lists(overrides, min_size=1, max_size=2))
def test_any_text_is_a_config_or_one_line(composer, texts):
    try:
        config = composer.compose(texts)
    except ConfigError as error:
        said = str(error)
    else:
        said = Run.of(config).run_id  # it is good enough to name a run
    assert said
    assert "\n" not in said


def test_a_class_is_a_choice_by_its_import_path(composer, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "without_yaml.py").write_text(
        "class Net:\n    def __init__(self, spec, width: int = 3): ...\n"
    )
    config = composer.compose(["model=without_yaml.Net", "model.width=5"])
    assert config["model"] == {"_target_": "without_yaml.Net", "_partial_": True, "width": 5}
    assert config["choices"] == {"task": "adding", "model": "without_yaml.Net"}
    for word, reason in (
        ("model=without_yaml.Ne", "without_yaml has no Ne (did you mean 'Net'?)"),
        ("model=no_module.Net", "cannot import no_module.Net: No module named 'no_module'"),
        ("model=without_yaml.py:Net", "as in model=without_yaml.Net, got"),
        ("model=src/without_yaml.py", "as in model=src.without_yaml.CLASS, got"),
        ("model=tcn.yml", "did you mean 'tcn'"),
        ("optimizer=torch.optim.Adam", "no optimizer named 'torch.optim.Adam'"),
    ):
        with pytest.raises(ConfigError, match=re.escape(reason)) as caught:
            composer.compose([word])
        assert "\n" not in str(caught.value)
