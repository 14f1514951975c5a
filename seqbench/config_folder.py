"""Where the packaged configurations lie: inside the wheel, or beside the package in a checkout."""

from pathlib import Path

_inside = Path(__file__).parent / "configs"
CONFIG_FOLDER = _inside if _inside.is_dir() else Path(__file__).parents[1] / "configs"
