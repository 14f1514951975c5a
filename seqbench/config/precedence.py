"""Merge the layers of a config, and return the baseline that a pair of task and model has.

The order of the layers, and so the precedence of settings, is the list `defaults` of
configs/train.yaml: task, model, trainer, recipe, protocol, budget, low to high. The command line
wins over all of them.
"""

from functools import cache
from string import Template
from typing import Any

from seqbench.config import Config
from seqbench.config.choices import (
    CONFIG_FOLDER,
    choices_of,
    find_choice,
    read_choice,
    shared_recipe,
)
from seqbench.config.yaml_file import read_yaml
from seqbench.errors import ConfigError

# The meaning of `optimizer=auto` and `schedule=auto` if the recipe names none.
FALLBACK = {"optimizer": "adam", "schedule": "constant"}
# Keys of a run that starts from other weights, and their defaults, which a config leaves out.
INITIAL: dict[str, Any] = {"init_from": None, "init_freeze": [], "init_lr_scale": 1.0}
# In a layer: another layer must set this value.
TO_BE_SET = "???"


def merge(lower: Any, higher: Any) -> Any:
    """Return two layers as one: dicts are merged key by key, another value of `higher` wins."""
    if not isinstance(lower, dict) or not isinstance(higher, dict):
        return higher
    merged = dict(lower)
    for key, value in higher.items():
        if key not in merged:
            merged[key] = value
        elif value != TO_BE_SET:
            merged[key] = merge(merged[key], value)
    return merged


def layer_of(content: Any, package: str) -> Config:
    """Return the content of a choice as a layer of a whole config.

    Args:
        content: of the choice; its list `defaults` is left out.
        package: dotted key below which it goes, or `_global_`.

    Raises:
        ConfigError: if something else than a dict goes to the top level.
    """
    if isinstance(content, dict):
        content = {key: value for key, value in content.items() if key != "defaults"}
    for key in reversed(package.split(".") if package not in ("", "_global_") else []):
        content = {key: content}
    if not isinstance(content, dict):
        raise ConfigError(f"expected keys and values of a configuration, got {content!r}")
    return content


def with_recipe(config: Config) -> Config:
    """Return a config with optimizer and schedule of its recipe, unless others are chosen.

    Raises:
        ConfigError: if an optimizer or a schedule is not a node.
    """
    config = {**config, "recipe": config.get("recipe", {})}
    if not isinstance(config["recipe"], dict):
        return config
    config["recipe"] = dict(config["recipe"])
    for name, fallback in FALLBACK.items():
        planned = config["recipe"].pop(name, None) or read_choice(name, fallback)
        chosen = config.get(name) or {}
        for key, node in ((f"recipe.{name}", planned), (name, chosen)):
            if not isinstance(node, dict):
                raise ConfigError(f"{key} must be a group of values, not {node!r}")
        # A choice on the command line replaces the recipe's node; single values only update it.
        config[name] = chosen if "_target_" in chosen else planned | chosen
    return config


@cache
def baseline(config_dir: str | None = None, /, **chosen: str) -> Config:
    """Return the config that choices have before any value is set, as the files of choices give it.

    It is merged without Hydra, which takes long to import, and without the lists `defaults` of
    choices. The names may come from an untrusted record: one that does not exist sets nothing.

    Args:
        config_dir: folder with the user's choices.
        chosen: group -> name of its choice; other groups have the choice in configs/train.yaml.

    Returns:
        A shared dict, which must not be changed. Its trackers are empty.

    Raises:
        ConfigError: if a file of the user cannot be read.
    """
    train = read_yaml(CONFIG_FOLDER / "train.yaml").content
    config: Config = {}
    for entry in train["defaults"]:
        if entry == "_self_":
            config = merge(config, layer_of(train, "_global_"))
            continue
        [(words, name)] = entry.items()
        group = words.removeprefix("optional ")
        name = chosen.setdefault(group, Template(str(name)).safe_substitute(chosen))
        # Looked up first: the name may be a path to another file.
        known = name in choices_of(group, config_dir)
        known = known or (group == "recipe" and shared_recipe(name, config_dir) is not None)
        found = find_choice(f"{group}/{name}", config_dir) if known else None
        if found is not None:
            config = merge(config, layer_of(found.content, found.package or group))
    return with_recipe({key: value for key, value in config.items() if key not in INITIAL})
