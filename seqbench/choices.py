"""What can be chosen: packaged configurations, those of a folder of the user's, and plug-ins."""

from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

# Inside the wheel, or beside the package in a checkout.
_inside = Path(__file__).parent / "configs"
CONFIG_FOLDER = _inside if _inside.is_dir() else Path(__file__).parents[1] / "configs"
# Groups that installed packages may add to, by entry points `seqbench.models` and `seqbench.tasks`.
PLUGGABLE = ("model", "task")


@cache
def plugins(group: str) -> dict[str, dict[str, Any]]:
    """What installed packages add to a group, by name: nodes of classes that are not imported yet.

    Their defaults are those of the signatures.
    """
    if group not in PLUGGABLE:
        return {}
    return {
        point.name: {"_target_": point.value.replace(":", "."), "_partial_": True}
        for point in entry_points(group=f"seqbench.{group}s")
    }


def folders(config_dir: str | None = None) -> list[Path]:
    """Where choices are: in our folder, and in the user's if there is one."""
    return [CONFIG_FOLDER, *([Path(config_dir)] if config_dir else [])]


def groups(config_dir: str | None = None) -> list[str]:
    """The names of the groups of choices."""
    found = (path for folder in folders(config_dir) for path in folder.iterdir())
    return sorted({path.name for path in found if path.is_dir()})


def choices_of(group: str, config_dir: str | None = None) -> list[str]:
    """What can be chosen of a group, plug-ins among them."""
    found = (path for folder in folders(config_dir) for path in (folder / group).glob("*.yaml"))
    return sorted({path.stem for path in found} | plugins(group).keys())


def read_choice(group: str, name: str) -> dict[str, Any]:
    """One of our own YAML files, as it is; or what a plug-in stands for."""
    import yaml  # completions of the command line need the names only

    if name in plugins(group):
        return plugins(group)[name]
    return yaml.safe_load((CONFIG_FOLDER / group / f"{name}.yaml").read_text(encoding="utf-8"))
