"""Packs a kit for a machine without a network: wheels, datasets, and the runs to go on with.

    python scripts/pack_kit.py dist/kit --python 3.12 --platform manylinux_2_28_x86_64
    (there)  dist/kit/run.sh FOLDER reproduce tcn2018 --only task=adding --max-time 8m
    (here)   cp -a FOLDER/outputs/runs outputs/

Then pack again: the next kit carries on from there, and what is completed is not run again. A run
has the same folder everywhere, so a copy is all it takes, if it was not trained here meanwhile.

Without --python and --platform the kit is for a machine like this one. pip reads conditions on the
version of Python as of the one that runs this: take one near the other machine's.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import requires
from pathlib import Path

from seqbench.datasets.catalog import DATASETS
from seqbench.datasets.download import check, data_folder, ensure
from seqbench.errors import SeqbenchError
from seqbench.results.collect import collect

ROOT = Path(__file__).parents[1]
# Hydra's parser pins a version of it that was only ever published as sources.
SOURCES_ONLY = "antlr4-python3-runtime"
PARTS = ("wheels", "data", "outputs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("kit", type=Path, help="folder to make")
    parser.add_argument("--python", metavar="VERSION", help="3.12; else that of this Python")
    parser.add_argument("--platform", help="manylinux_2_28_x86_64; else this machine's")
    there = "packages that it has and that stay out; none: torch comes, too, with gigabytes of CUDA"
    parser.add_argument("--there", nargs="*", default=["torch"], metavar="PACKAGE", help=there)
    data = "datasets to bring; else those that are here"
    parser.add_argument("--data", nargs="*", choices=DATASETS, metavar="DATASET", help=data)
    runs = "whose runs to bring, as in 'char_ptb/*' or '*/tcn'; else all"
    parser.add_argument("--runs", default="*/*", metavar="TASK/MODEL", help=runs)
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="where runs are")
    arguments = parser.parse_args()
    if arguments.kit.exists():
        sys.exit(f"{arguments.kit} is there already: remove it, or name another folder")
    arguments.kit.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.kit.parent) as folder:
        draft = Path(folder) / "kit"
        for part in PARTS:
            (draft / part).mkdir(parents=True)
        try:
            pack_data(draft / "data", arguments.data)
        except SeqbenchError as error:
            sys.exit(str(error))
        pack_runs(draft / "outputs", arguments.outputs, arguments.runs)
        pack_wheels(draft / "wheels", arguments.python, arguments.platform, arguments.there)
        shutil.copy(ROOT / "scripts" / "run_kit.sh", draft / "run.sh")
        draft.rename(arguments.kit)
    for part in (*PARTS, ""):
        print(f"{size(arguments.kit / part):8.1f} MiB  {arguments.kit / part}")


def pack_wheels(folder: Path, python: str | None, platform: str | None, there: list[str]) -> None:
    """Gather wheels of seqbench and of all that it needs, but for what is there."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    built = ["wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT), SOURCES_ONLY]
    target = ["--python-version", python] if python else []
    target += [word for tag in platforms(platform) for word in ("--platform", tag)]
    needs = [need for need in requires("seqbench") or [] if "extra ==" not in need]
    wanted = [need for need in needs if package(need) not in there]
    found = ["--only-binary=:all:", "--find-links", str(folder), "--dest", str(folder)]
    for words in (built, ["download", "--quiet", *found, *target, *wanted]):
        if subprocess.run([*pip, *words, *constraints]).returncode:
            sys.exit("pip did not find or build all that is needed")
    for wheel in folder.iterdir():
        if package(wheel.name.split("-")[0]) in there:  # something else needs it, too
            wheel.unlink()


def platforms(name: str | None) -> list[str]:
    """What pip has to be told, since it matches names.

    A machine with glibc 2.28 also takes wheels for older ones.
    """
    match = re.fullmatch(r"manylinux_2_(\d+)_(\w+)", name or "")
    if match is None:
        return [name] if name else []
    older = [f"manylinux_2_{minor}_{match[2]}" for minor in range(int(match[1]), 16, -1)]
    return [*older, f"manylinux2014_{match[2]}"]


def package(requirement: str) -> str:
    """The name in a requirement or of a wheel, as the index spells it."""
    return re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-")


def pack_data(folder: Path, names: list[str] | None) -> None:
    """Copy datasets; those that are asked for by name are fetched, if they are not here."""
    if names is None:
        here = data_folder()
        names = [
            name
            for name, dataset in DATASETS.items()
            if all(check(f, here / dataset.folder / f.name) == "ok" for f in dataset.files)
        ]
    for name in names:
        for path in ensure(name).values():
            place = folder / DATASETS[name].folder / path.name
            place.parent.mkdir(exist_ok=True)
            shutil.copy2(path, place)
    print("data:", ", ".join(names) or "none")


def pack_runs(folder: Path, outputs: Path, which: str) -> None:
    """Copy unfinished runs, and of those that are over the record, which says so."""
    found = collect([outputs / "reference", *outputs.glob(f"runs/{which}")])
    for run in found.folders.values():
        place = folder / run.relative_to(outputs)
        place.mkdir(parents=True)
        shutil.copy2(run / "record.json", place)
    # With a dot in front: a lock, or what a killed process had begun to write.
    hidden = shutil.ignore_patterns(".*")
    for run in found.unfinished:
        shutil.copytree(run, folder / run.relative_to(outputs), ignore=hidden)
    print(f"runs: {len(found.unfinished)} unfinished, {len(found.folders)} over")


def size(folder: Path) -> float:
    """MiB of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20


if __name__ == "__main__":
    main()
