"""Where choices come from: the packaged configurations, and the plug-ins that are installed."""

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
