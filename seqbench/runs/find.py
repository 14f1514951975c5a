"""Find the folders of runs, by path or by run id."""

import difflib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from seqbench.errors import ConfigError

# The default of `output_dir`.
OUTPUTS = Path("outputs")


def run_folders(path: Path) -> Iterator[Path]:
    """Yield the run folders at or below `path`, in sorted order.

    `path` may also be a `record.json`. Subfolders of a run folder are not searched, and symbolic
    links inside `path` are not followed.
    """
    if path.name == "record.json" and path.is_file():
        path = path.parent
    waiting = [os.fspath(path)]
    while waiting:
        folder = waiting.pop()
        # Most folders are finished runs: checking for one file is faster than listing all.
        if os.path.isfile(f"{folder}/record.json"):  # noqa: PTH113
            yield Path(folder)
            continue
        try:
            with os.scandir(folder) as entries:
                names = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
        except OSError:  # deleted in the meantime, or no permission
            continue
        if "record.json" in names or "config.yaml" in names:
            yield Path(folder)
            continue
        inner = sorted((name for name, is_folder in names.items() if is_folder), reverse=True)
        waiting += [f"{folder}/{name}" for name in inner]


def output_folder(output_dir: Path) -> Path:
    """Return the output folder to read: the default is also found from inside it.

    Args:
        output_dir: as the user gives it, or `OUTPUTS`.
    """
    if output_dir != OUTPUTS or output_dir.exists():
        return output_dir
    above = (Path(*[os.pardir] * i) for i in range(len(Path.cwd().parents) + 1))
    return next((folder for folder in above if (folder / "runs").is_dir()), output_dir)


def places(output_dir: Path, names: Sequence[str] = ("runs",)) -> list[Path]:
    """Return the subfolders of these names in an output folder; the folder itself without them."""
    folder = output_folder(output_dir)
    inside = [folder / name for name in names if (folder / name).is_dir()]
    return inside or [folder / names[0] if folder == OUTPUTS else folder]


def find_run(run: str, output_dir: Path) -> Path:
    """Return the folder of a run.

    Args:
        run: a run id, a unique prefix of one, the path of a run folder or of a folder with a single
            run, or `FOLDER/ID`.
        output_dir: where runs are written; its subfolders `runs` and `reference` are searched.

    Raises:
        ConfigError: if no run or more than one matches.
    """
    path = Path(run)
    if path.name == "record.json":
        path = path.parent
    if any((path / name).is_file() for name in ("record.json", "config.yaml")):
        return path
    name, where = run, output_folder(output_dir)
    if os.sep in run and not path.is_dir():
        name, where = path.name, path.parent
    folders: dict[str, Path] = {}
    for place in places(where, ("runs", "reference")):
        for folder in run_folders(place):
            folders.setdefault(folder.name, folder)
    matching = [known for known in folders if known.startswith(name)]
    if not matching and path.is_dir():
        folders = {folder.name: folder for folder in run_folders(path)}
        name, where, matching = "", path, list(folders)
    if name in folders or len(matching) == 1:
        return folders[name if name in folders else matching[0]]
    if matching:
        listed = ", ".join(sorted(matching)[:5]) + (", ..." if len(matching) > 5 else "")
        raise ConfigError(f"run '{run}' could be any of {len(matching)}: {listed}")
    if where != OUTPUTS and not where.is_dir():
        raise ConfigError(f"there is no folder '{where}'")
    near = difflib.get_close_matches(name, folders, n=1)
    hint = "`seqbench runs` lists them; FOLDER/ID names one of another folder"
    if near:
        hint = f"did you mean '{near[0]}'?"
    raise ConfigError(f"no run '{name}' in {where} ({hint})")
