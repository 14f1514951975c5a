from itertools import product

import pytest
import yaml
from choice_files import GLOBAL, RNN, shipped, write

from seqbench.config.choices import CONFIG_FOLDER, choices_of, shared_recipe
from seqbench.config.compose import Composer
from seqbench.config.precedence import baseline, layer_of, merge
from seqbench.errors import ConfigError


def test_the_baseline_is_what_compose_gives(composer):
    codes = {path.stem for path in (CONFIG_FOLDER / "protocol_for/pair").glob("*_code.yaml")}
    models, budgets = choices_of("model"), choices_of("budget")
    for i, (task, protocol) in enumerate(product(choices_of("task"), choices_of("protocol"))):
        model = "tcn" if protocol == "code" else models[i % len(models)]
        if protocol == "code" and f"{task}_tcn_code" not in codes:
            continue
        chosen = {"task": task, "model": model, "protocol": protocol}
        chosen["budget"] = budgets[i % len(budgets)]
        config = composer.compose([f"{group}={name}" for group, name in chosen.items()])
        assert baseline(**chosen) == {k: v for k, v in config.items() if k != "choices"}
    words = {"optimizer": "sgd", "schedule": "step", "recipe": "none"}
    config = composer.compose([f"{group}={name}" for group, name in words.items()])
    assert baseline(**words).items() <= config.items()


def test_a_name_that_does_not_exist_sets_nothing(tmp_path):
    write(tmp_path, {"model/mine": RNN})
    found = baseline(task="adding", model="../task/copy", budget="", protocol="../../etc/passwd")
    assert "model" not in found
    assert found["task"] == shipped("task/adding")
    assert "model" not in baseline(model="mine")
    assert baseline(str(tmp_path), model="mine")["model"] == RNN


def test_dicts_are_merged_and_a_value_to_be_set_gives_way():
    lower, higher = {"a": {"b": 1, "c": [1]}, "d": 2}, {"a": {"c": [2], "e": None}, "d": "???"}
    assert merge(lower, higher) == {"a": {"b": 1, "c": [2], "e": None}, "d": 2}
    assert merge(merge({}, {"d": "???"}), {"d": {"x": 1}}) == {"d": {"x": 1}}
    assert lower["a"] == {"b": 1, "c": [1]}
    assert layer_of({"defaults": [], "x": 1}, "a.b") == {"a": {"b": {"x": 1}}}
    with pytest.raises(ConfigError, match="keys and values"):
        layer_of(["x"], "_global_")


@pytest.mark.parametrize("budget", ["quick", "smoke"])
@pytest.mark.parametrize("task", choices_of("task"))
def test_there_is_a_budget_for_each_task(task, budget):
    content = shipped(f"budget_for/{task}_{budget}")
    config = baseline(task=task, budget=budget)
    assert "model" not in content  # a budget never changes the model
    assert all(config[node].items() >= values.items() for node, values in content.items())
    if budget == "smoke":
        assert config["trainer"]["steps"] <= 20


def test_each_budget_and_recipe_is_for_names_that_exist():
    tasks = choices_of("task")
    assert set(choices_of("budget_for")) <= {
        f"{t}_{b}" for t in tasks for b in choices_of("budget")
    }
    models = choices_of("model")
    pairs = {f"{task}_{model}" for task in tasks for model in models}
    assert set(choices_of("recipe")) - {"none"} <= pairs | {*models}


@pytest.mark.parametrize("name", [name for name in choices_of("recipe") if name != "none"])
def test_each_recipe_holds_for_its_pair(name):
    task, _, model = ("copy", "", name) if name in choices_of("model") else name.rpartition("_")
    content, config = shipped(f"recipe/{name}"), baseline(task=task, model=model)
    assert config["optimizer"] == content["recipe"]["optimizer"]
    assert config["schedule"] == content["recipe"]["schedule"]
    assert config["recipe"]["source"]
    for node in content.keys() - {"recipe"}:
        assert config[node].items() >= content[node].items()


def test_the_recipe_of_a_model_holds_where_the_pair_has_none(tmp_path, composer):
    shared, own = (
        {"recipe": {"source": name}, "trainer": {"clip": 3.0}} for name in ("all", "one")
    )
    files = {"model/a_tcn": RNN, "recipe/a_tcn": shared, "recipe/copy_a_tcn": own}
    write(tmp_path, {k: v if k[0] == "m" else GLOBAL + yaml.safe_dump(v) for k, v in files.items()})
    for task, source in (("adding", "all"), ("copy", "one"), ("my_task.MyTask", "all")):
        found = baseline(str(tmp_path), task=task, model="a_tcn")
        assert (found["recipe"], found["trainer"]["clip"]) == ({"source": source}, 3.0)
        if task != "my_task.MyTask":
            config = Composer(str(tmp_path)).compose([f"task={task}", "model=a_tcn"])
            assert (config["recipe"], config["trainer"]["clip"]) == ({"source": source}, 3.0)
    # Another model, whose name ends alike, and names that are no task.
    assert shared_recipe("adding_tcn", str(tmp_path)) is None
    assert shared_recipe("../adding_a_tcn", str(tmp_path)) is None
    assert shared_recipe("a_tcn", str(tmp_path)) is None
    assert composer.compose(["model=transformer_xl", "recipe=none"])["recipe"] == {}
