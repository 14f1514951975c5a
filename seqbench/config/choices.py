"""Find and read choices: seqbench's configs, those of the user's config folder, and plug-ins."""

import re
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqbench.errors import ConfigError
from seqbench.wording import plain, suggestion

if TYPE_CHECKING:
    from seqbench.config.yaml_file import Choice

# In the package if installed from a wheel, next to it in a checkout.
_inside = Path(__file__).parents[1] / "configs"
CONFIG_FOLDER = _inside if _inside.is_dir() else Path(__file__).parents[2] / "configs"
# Groups that installed packages extend by the entry points `seqbench.models` and `seqbench.tasks`.
PLUGGABLE = ("model", "task")
# The import path of a class, which is a choice of these groups, too.
IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+(?<!\.yml)(?<!\.yaml)(?<!\.py)")


@cache
def plugins(group: str) -> dict[str, dict[str, Any]]:
    """Return the nodes that installed packages add to a group, by name.

    The classes are not imported yet. A node sets no values: the defaults of the signature hold.
    """
    if group not in PLUGGABLE:
        return {}
    return {
        point.name: _node_of(point.value.replace(":", "."))
        for point in entry_points(group=f"seqbench.{group}s")
    }


def _node_of(target: str) -> dict[str, Any]:
    return {"_target_": target, "_partial_": True}


def folders(config_dir: str | None = None) -> list[Path]:
    """Return the folders of choices: the user's if given, which goes first, and seqbench's.

    Raises:
        ConfigError: if the user's folder does not exist.
    """
    if config_dir and not Path(config_dir).is_dir():
        raise ConfigError(f"no folder of configurations at {config_dir}")
    return [*([Path(config_dir)] if config_dir else []), CONFIG_FOLDER]


def groups(config_dir: str | None = None) -> list[str]:
    """Return the sorted names of the groups of choices."""
    found = (path for folder in folders(config_dir) for path in folder.iterdir())
    return sorted({path.name for path in found if path.is_dir()})


def choices_of(group: str, config_dir: str | None = None) -> list[str]:
    """Return the sorted names of a group's choices, including plug-ins."""
    found = (path for folder in folders(config_dir) for path in (folder / group).glob("*.yaml"))
    return sorted({path.stem for path in found} | plugins(group).keys())


def find_choice(path: str, config_dir: str | None = None) -> "Choice | None":
    """Return a choice: of the folders, of a plug-in, or a class; `None` for an unknown one.

    A pair of task and model without a recipe of its own has the recipe of the model. The class of
    an import path (`model/my_model.MyModel`) is not imported yet.

    Args:
        path: group and name, as in `model/tcn`.
        config_dir: folder with the user's choices.

    Raises:
        ConfigError: if its file cannot be read.
    """
    from seqbench.config.yaml_file import Choice, read_yaml  # not at the top: completion is fast

    for folder in folders(config_dir):
        file = folder / f"{path}.yaml"
        if file.is_file():
            return read_yaml(file)
    group, _, name = path.rpartition("/")
    if group == "recipe" and (model := shared_recipe(name, config_dir)):
        return find_choice(f"recipe/{model}", config_dir)
    if name in plugins(group):
        return Choice(plugins(group)[name])
    is_class = group in PLUGGABLE and IMPORT_PATH.fullmatch(name)
    return Choice(_node_of(name)) if is_class else None


def shared_recipe(pair: str, config_dir: str | None = None) -> str | None:
    """Return the name of the recipe that a model has for all tasks: that of the model.

    Args:
        pair: `TASK_MODEL`.
        config_dir: folder with the user's choices.
    """
    tasks, recipes = choices_of("task", config_dir), choices_of("recipe", config_dir)
    for model in set(recipes).intersection(choices_of("model", config_dir)):
        task, found, rest = pair.rpartition(f"_{model}")
        if found and not rest and (task in tasks or IMPORT_PATH.fullmatch(task)):
            return model
    return None


def read_choice(group: str, name: str, config_dir: str | None = None) -> dict[str, Any]:
    """Return the content of a choice, unresolved.

    Raises:
        ConfigError: if there is no such choice, or its file cannot be read.
    """
    found = find_choice(f"{group}/{name}", config_dir)
    if found is None:
        raise unknown_choice_error(group, name, config_dir)
    content: dict[str, Any] = found.content
    return content


def unknown_choice_error(
    group: str, name: str, config_dir: str | None = None, label: str | None = None
) -> ConfigError:
    """Return the error for a choice that does not exist; `label` is the group as it is typed."""
    for folder in folders(config_dir):
        file = folder / group / f"{name.removesuffix('.yml')}.yml"
        if file.is_file():
            return ConfigError(f"{file} is not read: rename it to {file.stem}.yaml")
    file_name, _, class_name = name.partition(".py")
    if group in PLUGGABLE and file_name != name:
        wanted = f"{file_name.replace('/', '.')}.{class_name.lstrip(':') or 'CLASS'}"
        return ConfigError(
            f"expected MODULE.CLASS, as in {group}={plain(wanted)}, got '{plain(name)}'"
        )
    known = choices_of(group, config_dir)
    return ConfigError(f"no {label or group} named '{plain(name)}'{suggestion(name, known)}")
