"""Find and read choices: seqbench's configs, those of the user's config folder, and plug-ins."""

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


@cache
def plugins(group: str) -> dict[str, dict[str, Any]]:
    """Return the nodes that installed packages add to a group, by name.

    The classes are not imported yet. A node sets no values: the defaults of the signature hold.
    """
    if group not in PLUGGABLE:
        return {}
    return {
        point.name: {"_target_": point.value.replace(":", "."), "_partial_": True}
        for point in entry_points(group=f"seqbench.{group}s")
    }


def folders(config_dir: str | None = None) -> list[Path]:
    """Return the folders of choices: the user's if given, which goes first, and seqbench's."""
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
    """Return the choice at a path below the folders of choices; `None` for an unknown one.

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
    return Choice(plugins(group)[name]) if name in plugins(group) else None


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
    known = choices_of(group, config_dir)
    return ConfigError(f"no {label or group} named '{plain(name)}'{suggestion(name, known)}")
