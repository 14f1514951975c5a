"""Compare what two git revisions compute, bit for bit.

    python scripts/compare_revisions.py main HEAD
    python scripts/compare_revisions.py v0.1.0 HEAD --pair lstm/copy -- recipe=none

For a change that claims not to alter the computation: a refactoring, a speed-up that keeps the
order of the sums. Both revisions train the same models on the same tasks for some steps, on this
machine, with this Python and its libraries. Every metric of every step, and the final weights, must
be equal bit for bit. Recipes and default sizes belong to a revision; what comes after `--` can fix
them. Prints a table; exit code 0: equal, 1: different, 2: a revision cannot be run.

The revisions are checked out into temporary worktrees, which are removed in the end. Changes that
are not committed are not compared.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import safe_open

MODELS = ("tcn", "lstm", "gru", "rnn", "llama")
TASKS = ("adding", "copy", "char_markov")  # their data are made on the spot
# One process for all runs of a revision, as starting one takes longer than a run. It makes sure
# that it runs the worktree's code, and not an installed one.
DRIVER = """
import json, sys
from pathlib import Path
import seqbench
assert Path(seqbench.__file__).is_relative_to(sys.argv[1]), f"{seqbench.__file__} was imported"
from seqbench.cli.main import app
for overrides in json.loads(sys.argv[2]):
    app(["train", *overrides], standalone_mode=False)
"""


class Failed(Exception):
    """A revision cannot be checked out or run; the text is one line."""


def main() -> int:
    """Compare, print a table, and return the exit code."""
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0],
        epilog="What comes after -- is added to the overrides of every run.",
    )
    parser.add_argument("revisions", nargs=2, metavar="REV", help="whatever git calls a commit")
    parser.add_argument("--steps", type=int, default=20, help="training steps of each run")
    parser.add_argument(
        "--pair", action="append", metavar="MODEL/TASK", help="default: all on the generated tasks"
    )
    arguments = parser.parse_args(words[:end])
    pairs = arguments.pair or [f"{model}/{task}" for task in TASKS for model in MODELS]
    with tempfile.TemporaryDirectory() as folder:
        try:
            outputs = [
                trained(revision, Path(folder) / side, pairs, arguments.steps, words[end + 1 :])
                for side, revision in zip("ab", arguments.revisions, strict=True)
            ]
        except Failed as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        differences = {pair: difference(*(output / pair for output in outputs)) for pair in pairs}
    width = max(map(len, pairs))
    for pair, found in differences.items():
        print(f"{pair:{width}}  {found or 'equal'}")
    return 1 if any(differences.values()) else 0


def trained(
    revision: str, folder: Path, pairs: list[str], steps: int, overrides: list[str]
) -> Path:
    """Train all pairs with the code of a revision; the folder with an output folder for each."""
    runs = []
    for pair in pairs:
        model, _, task = pair.partition("/")
        runs.append(
            [
                *(f"model={model}", f"task={task}", "budget=smoke", "threads=1"),
                *(f"trainer.steps={steps}", "trainer.log_every=1", *overrides),
                f"output_dir={folder / 'outputs' / pair}",
            ]
        )
    with worktree(revision, folder / "worktree") as tree:
        done = subprocess.run(
            [sys.executable, "-c", DRIVER, str(tree), json.dumps(runs)],
            cwd=tree,
            env={**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
        )
    if done.returncode:
        said = done.stderr.strip().split("\n")[-1]
        raise Failed(f"{revision} cannot be run: {said}")
    return folder / "outputs"


@contextmanager
def worktree(revision: str, path: Path) -> Iterator[Path]:
    """Check out a revision of the current folder's repository for as long as it is needed."""
    added = git("worktree", "add", "--detach", str(path), revision)
    try:
        if added.returncode:
            said = added.stderr.strip().split("\n")[-1]
            raise Failed(f"cannot check out {revision}: {said}")
        yield path.resolve()
    finally:
        git("worktree", "remove", "--force", str(path))


def git(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a git command in the current folder's repository."""
    return subprocess.run(["git", *words], capture_output=True, text=True)


def difference(a: Path, b: Path) -> str | None:
    """Return how the runs in two output folders first differ; `None` if they are equal."""
    one, other = (events(folder) for folder in (a, b))
    for x, y in zip(one, other, strict=False):
        for key in x.keys() | y.keys():
            if x.get(key) != y.get(key):
                return f"step {x['step']}: {x['split']} {key} {x.get(key)} and {y.get(key)}"
    if len(one) != len(other):
        return f"{len(one)} and {len(other)} events"
    one_tensors, other_tensors = (weights(folder) for folder in (a, b))
    if one_tensors.keys() != other_tensors.keys():
        return "other names: " + ", ".join(sorted(one_tensors.keys() ^ other_tensors.keys()))
    unequal = [name for name, data in one_tensors.items() if data != other_tensors[name]]
    return f"final weights: {', '.join(sorted(unequal))}" if unequal else None


def events(outputs: Path) -> list[dict[str, float | str]]:
    """Return each metric that the run in an output folder logged, with its step."""
    (path,) = outputs.glob("runs/*/*/*/events.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def weights(outputs: Path) -> dict[str, bytes]:
    """Return the final weights of the run in an output folder: name -> bytes."""
    (path,) = outputs.glob("runs/*/*/*/checkpoints/last.safetensors")
    with safe_open(path, framework="numpy") as file:
        names = [name for name in file.keys() if name.startswith("model.")]  # noqa: SIM118
        return {name: file.get_tensor(name).tobytes() for name in names}


if __name__ == "__main__":
    sys.exit(main())
