"""Seed one fault after the other in a copy of the checkout, and check that a test fails.

    python scripts/seeded_faults.py                      all: half an hour on two cores
    python scripts/seeded_faults.py --only NAME NAME     some
    python scripts/seeded_faults.py --list               names, and the harm that each would do

For a change that removes or rewrites tests. `seeded_faults.yaml` has the faults: mistakes that a
maintainer could make, each with the tests that should fail. Mutation tools (mutmut, cosmic-ray) do
not serve: they generate thousands of changes of Python alone, and run the same tests for each.

Exit code 1: a fault was not caught, or its text does not occur exactly once.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
# Tests that start a cluster take long, and do not run on every machine.
PYTEST = ("-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not (ray or slurm)")
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+?::.+?)(?: - .*)?$", re.MULTILINE)
TIMEOUT = 900  # seconds for the tests of a fault; some compile kernels


@dataclass(frozen=True)
class Fault:
    """A mistake that a maintainer could make.

    Attributes:
        name: its name in the list.
        folder: a folder or file, below which the text occurs exactly once.
        harm: what goes wrong for the user.
        text: the text to replace.
        becomes: its replacement.
        tests: the folder or file of the tests that should fail.
    """

    name: str
    folder: str
    harm: str
    text: str
    becomes: str
    tests: str


class NotCaught(Exception):
    """A fault that no test caught, or that could not be seeded; the text says why."""


def main() -> int:
    """Seed the faults, print a line for each, and return the exit code."""
    faults = {fault.name: fault for fault in read_faults()}
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=faults, default=list(faults))
    parser.add_argument("--list", action="store_true", help="only look for the texts")
    arguments = parser.parse_args()
    names = dict.fromkeys(arguments.only)
    missed = 0
    with tempfile.TemporaryDirectory(prefix="seqbench-faults-") as folder:
        copy_checkout(Path(folder))
        for name in names:
            fault, began = faults[name], time.monotonic()
            try:
                path = find(fault, Path(folder))
                if arguments.list:
                    result = fault.harm
                else:
                    result = f"caught by {failed_test(fault, path, Path(folder))}"
            except NotCaught as reason:
                result = f"NOT CAUGHT: {reason}"
                missed += 1
            seconds = "" if arguments.list else f"{time.monotonic() - began:5.0f} s"
            print(f"{name:{max(map(len, names))}}{seconds}  {result}", flush=True)
    print(f"{len(names) - missed} of {len(names)} {'found' if arguments.list else 'caught'}")
    return int(missed > 0)


def read_faults() -> list[Fault]:
    """Return the faults of the list, in its order."""
    folders = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    return [
        Fault(name, folder, **fields)
        for folder, faults in folders.items()
        for name, fields in faults.items()
    ]


def copy_checkout(target: Path) -> None:
    """Copy all files that git does not ignore, committed or not."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():  # git also lists files that were deleted
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def find(fault: Fault, root: Path) -> Path:
    """Return the file of a copy that has the text of a fault.

    Raises:
        NotCaught: if the text does not occur exactly once.
    """
    top = root / fault.folder
    files = [top] if top.is_file() else [path for path in top.rglob("*") if path.is_file()]
    found = [path for path in files for _ in range(path.read_bytes().count(fault.text.encode()))]
    if len(found) != 1:
        raise NotCaught(f"its text occurs {len(found)} times in {fault.folder}")
    return found[0]


def failed_test(fault: Fault, path: Path, root: Path) -> str:
    """Seed a fault in a file, run its tests until one fails, and return that test's name.

    Raises:
        NotCaught: if none fails, or the tests cannot be run.
    """
    environment = os.environ | {
        "PYTHONPATH": str(root),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "CI": "true",  # no deadlines of Hypothesis, so that a slow machine is not a fault
        "XDG_CACHE_HOME": str(root / ".cache"),  # keeps compiled faults out of the user's cache
    }
    sound = path.read_text(encoding="utf-8")
    path.write_text(sound.replace(fault.text, fault.becomes), encoding="utf-8")
    try:
        done = subprocess.run(
            [sys.executable, *PYTEST, fault.tests],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        raise NotCaught(f"{fault.tests} takes over {TIMEOUT} seconds") from None
    finally:
        path.write_text(sound, encoding="utf-8")
    found = FAILED.search(done.stdout)
    if done.returncode == 1 and found:
        return found[1]
    *_, last = (done.stdout + done.stderr).splitlines() or [""]
    how = "passes" if done.returncode == 0 else "cannot be run or collected"
    raise NotCaught(f"{fault.tests} {how}: {last.strip()}")


if __name__ == "__main__":
    sys.exit(main())
