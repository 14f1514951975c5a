import re

import pytest
from choice_files import GLOBAL, RNN, write

from seqbench.config.yaml_file import read_yaml


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", r".*mine\.yaml, line 2: did not find expected node content"),
        ("a: 1\na: 2", r".*mine\.yaml, line 2: found duplicate key a"),
        ("!!python/object/apply:os.getcwd []", r".*mine\.yaml, line 1: could not determine"),
        ("a: &a [*a]", "maximum recursion depth"),
        ("- a", r"model must be a group of values with a _target_, not \['a'\]"),
        ("just text", "model must be a group of values with a _target_"),
        ("", "model must be a group of values with a _target_"),
        ("x: ???", "Missing mandatory value: x"),
        ("defaults: [nothing]", "In 'model/mine': Could not load 'model/nothing'"),
        ("defaults: 3", "Invalid defaults list in 'model/mine'"),
        ("# @package elsewhere\na: 1", "no key 'elsewhere'"),
        (f"{GLOBAL}- a", r"expected keys and values of a configuration, got \['a'\]"),
        ("_target_: torch.nn.GRU\nbias: .nan", "model.bias must be JSON-serializable, not nan"),
        ("_target_: torch.nn.GRU\nbias: {1: 2}", r".*mine\.yaml, line 2: YAML does not read the"),
        *(
            (f"a: 1\n{key}: 2", rf".*mine\.yaml, line 2: YAML does not read the key {key} as text")
            for key in ("off", "no", "1", "1e-3", "null")
        ),
    ],
)
def test_a_wrong_file_of_the_user_costs_one_line(refused, text, said, tmp_path):
    folder = write(tmp_path, {"model/mine": text + "\n"})
    assert re.match(said, refused("model=mine", config_dir=folder))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_a_file_in_another_encoding_is_named(refused, encoding, tmp_path):
    write(tmp_path, {"model/mine": ""})
    (tmp_path / "model/mine.yaml").write_bytes("é: 1\n".encode(encoding))
    said = refused("model=mine", config_dir=str(tmp_path))
    assert said.startswith(f"{tmp_path}/model/mine.yaml")


@pytest.mark.parametrize("group", ["optimizer", "schedule"])
def test_a_choice_that_is_no_node_costs_one_line(refused, group, tmp_path):
    folder = write(tmp_path, {f"{group}/mine": "- a\n"})
    said = refused(f"{group}=mine", config_dir=folder)
    assert said == f"{group} must be a group of values, not ['a']"


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
def test_a_slip_in_a_recipe_costs_one_line(refused, recipe, said, tmp_path):
    folder = write(tmp_path, {"model/mine": RNN, "recipe/adding_mine": f"{GLOBAL}{recipe}\n"})
    assert refused("model=mine", config_dir=folder) == said


def test_values_are_read_as_hydra_reads_them_and_a_changed_file_is_read_again(tmp_path):
    write(tmp_path, {"a": f"{GLOBAL}x: [1e-3, -1E5, .5e2, 1_000, 2026-01-01, '1e3', on]\n"})
    choice = read_yaml(tmp_path / "a.yaml")
    assert choice.content == {"x": [1e-3, -1e5, 50.0, 1000, "2026-01-01", "1e3", True]}
    assert choice.package == "_global_"
    write(tmp_path, {"a": "\ufeff"})
    assert read_yaml(tmp_path / "a.yaml") == ({}, None)


def test_the_package_may_follow_other_comments(tmp_path):
    write(
        tmp_path, {"a": "# my settings\n\n# @package _global_\nx: 1\n", "b": "x: 1\n# @package c\n"}
    )
    assert read_yaml(tmp_path / "a.yaml") == ({"x": 1}, "_global_")
    assert read_yaml(tmp_path / "b.yaml").package is None
