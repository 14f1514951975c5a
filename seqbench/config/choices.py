"""Find choices: seqbench's configs, those of the user's config folder, and plug-ins."""

from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

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
    """Return the folders of choices: seqbench's, and the user's if given."""
    return [CONFIG_FOLDER, *([Path(config_dir)] if config_dir else [])]


def groups(config_dir: str | None = None) -> list[str]:
    """Return the sorted names of the groups of choices."""
    found = (path for folder in folders(config_dir) for path in folder.iterdir())
    return sorted({path.name for path in found if path.is_dir()})


def choices_of(group: str, config_dir: str | None = None) -> list[str]:
    """Return the sorted names of a group's choices, including plug-ins."""
    found = (path for folder in folders(config_dir) for path in (folder / group).glob("*.yaml"))
    return sorted({path.stem for path in found} | plugins(group).keys())


def read_choice(group: str, name: str) -> dict[str, Any]:
    """Return the node of a plug-in, or the content of one of seqbench's YAML files, unresolved."""
    import yaml  # not at the top: shell completion needs only names

    if name in plugins(group):
        return plugins(group)[name]
    return yaml.safe_load((CONFIG_FOLDER / group / f"{name}.yaml").read_text(encoding="utf-8"))
