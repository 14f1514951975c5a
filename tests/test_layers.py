"""Test which modules may import which, and which must not import torch."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from record_factory import make_record, write_run, write_unfinished

import seqbench

PACKAGE = Path(seqbench.__file__).parent
# From the top down. A module imports from the layers below its own; within a layer nobody knows
# of the others.
LAYERS = (
    {"__main__"},
    {"cli"},
    {"launch", "bench", "export"},
    {"experiment", "contracts"},
    {"trackers"},
    {"results"},
    {"training", "machine"},
    {"tasks", "models"},
    {"config"},
    {"runs", "datasets"},
    {"spec", "wording", "user_files", "kernels"},
    {"errors"},
)
LEVEL = {name: level for level, layer in enumerate(LAYERS) for name in layer}
WITHOUT_TORCH = ("cli", "results", "runs", "datasets")
MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path):
    return path.relative_to(PACKAGE).as_posix()


def part_of(path):
    """Return the module or subpackage that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree, inside_functions):
    """Return the dotted names of all imports."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif inside_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imports(node, inside_functions)


def test_files_of_tests_have_names_of_their_own():
    """pytest imports them as top-level modules."""
    names = [path.name for path in Path(__file__).parent.rglob("*.py")]
    assert {name for name in names if names.count(name) > 1} <= {"conftest.py"}


def test_every_part_of_the_house_has_its_layer():
    parts = {part_of(path) for path in MODULES} - {"__init__"}
    assert parts <= LEVEL.keys(), "say in LAYERS where it belongs"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_down(path):
    part = part_of(path)
    for name in imports(ast.parse(path.read_text(encoding="utf-8")), inside_functions=True):
        package, _, rest = name.partition(".")
        imported = rest.split(".")[0]
        if package == "seqbench" and imported in LEVEL and imported != part:
            assert LEVEL[imported] > LEVEL[part], f"{part} imports {name}"


@pytest.mark.parametrize(
    "path", [path for path in MODULES if part_of(path) in WITHOUT_TORCH], ids=name_of
)
def test_nobody_who_lists_waits_for_torch(path):
    found = list(imports(ast.parse(path.read_text(encoding="utf-8")), inside_functions=False))
    assert not [name for name in found if name.split(".")[0] == "torch"]


COMMANDS = """
import json, sys
from seqbench.cli.main import app
from typer.testing import CliRunner

SLOW = {"torch", "hydra", "omegaconf", "numpy", "duckdb", "pooch", "rich"}
for line in sys.stdin.read().splitlines():
    result = CliRunner().invoke(app, line.split("\\t"))
    print(json.dumps([result.exit_code, sorted(SLOW & sys.modules.keys()), result.output]))
    sys.modules.pop("duckdb", None)  # if another command imports it, too, that shows
"""


def test_commands_that_only_look_import_little(tmp_path):
    """Run them in one process, those that import more after those that import less."""
    runs = [make_record(seed=seed) for seed in (0, 1)]
    for record in runs:
        write_run(tmp_path, record)
    begun = make_record(seed=2)
    write_unfinished(tmp_path, begun, '{"step": 5, "split": "train", "loss": 1.5}\n')
    here = ["--output-dir", str(tmp_path)]
    one, other = (record.run_id for record in runs)
    expected: list[tuple[list[str], set[str]]] = [
        (["--help"], set()),
        (["train", "--help"], set()),
        (["data", "--help"], set()),
        *((["list", kind], set()) for kind in ("models", "tasks", "recipes", "papers", "datasets")),
        (["sql", "from runs", "-f", "csv", *here], {"duckdb"}),
        (["clean", "--dry-run", *here], {"rich"}),
        (["runs", *here], {"rich"}),
        (["show", one, *here], {"rich"}),
        (["compare", one, other, *here], {"rich"}),
        (["table", "-f", "csv", *here], {"rich"}),
        (["table", *here], {"rich"}),
        (["table", "--paper", "tcn2018", *here], {"rich"}),
        (["report", *here, "-o", str(tmp_path / "report.html")], {"rich"}),
        (["plot", "--kind", "pareto", *here, "-o", str(tmp_path / "plot.svg")], {"rich", "numpy"}),
        (["show", begun.run_id, *here], {"rich", "numpy"}),
    ]
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS],
        input="\n".join("\t".join(words) for words, _ in expected),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    for (words, modules), (code, imported, output) in zip(expected, lines, strict=True):
        assert code == 0, output
        assert {*imported} == modules, words
