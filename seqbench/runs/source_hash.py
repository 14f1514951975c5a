"""Hash the code of seqbench that computes a run.

Tables say which runs have older code, so only code counts that can change a result: not comments,
docstrings and layout, nor the messages of errors, nor classes that the run does not use. A new
option of one model does not make the results of another old.
"""

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from seqbench.runs.code_hash import code_of, has_docstring, hash_of, imports_of, text_of

PACKAGE = Path(__file__).parents[1]
# The parts of seqbench that compute results.
COMPUTES = ("spec.py", "datasets", "kernels", "models", "tasks", "training")
SUFFIXES = (".py", ".cpp", ".h")
# Nodes of a config that build what computes.
NODES = ("task", "model", "optimizer", "schedule", "trainer")
TRAINER, KERNELS = "seqbench.training.trainer", "seqbench.kernels"
_text, _cpp = cache(text_of), cache(code_of)  # many runs share them


def source_hash(config: dict[str, Any]) -> str:
    """Return 12 hex digits of the SHA-256 of the sources of seqbench that compute a run.

    These are the modules of the trainer and of the classes that the config builds, and what they
    import of `COMPUTES`, without the messages of errors and the classes that no such code names. If
    the config builds a user's class, which may import anything, they are all of `COMPUTES`.

    Args:
        config: the run's config; it may come from an untrusted record, and nothing is imported.
    """
    nodes = [node for name in NODES if isinstance(node := config.get(name), dict)]
    targets = {target for node in nodes if isinstance(target := node.get("_target_"), str)}
    return _source_hash(frozenset(targets))


@cache
def _source_hash(targets: frozenset[str]) -> str:
    built = [target for target in targets if not target.startswith("torch.")]
    found = dict(_modules([TRAINER, *(target.rpartition(".")[0] for target in built)]))
    is_known = all(target.rpartition(".")[0] in found for target in built)
    folders: list[Path] = []
    if not is_known:
        found, folders = {}, [PACKAGE / part for part in COMPUTES]
    elif any(name.startswith(KERNELS) for name in found):
        folders = [PACKAGE / "kernels" / "csrc"]
    files = {
        path.relative_to(PACKAGE).as_posix(): path
        for path in [*found.values(), *folders, *(p for f in folders for p in f.rglob("*"))]
        if path.suffix in SUFFIXES
    }
    modules = {name: _statements(path) for name, path in files.items() if path.suffix == ".py"}
    if is_known:
        used = frozenset(target.rpartition(".")[2] for target in built)
        modules = without_unused_classes(modules, used)
    codes = {name: b"\n".join(map(_text, nodes)) for name, nodes in modules.items()}
    codes |= {name: _cpp(path) for name, path in files.items() if name not in modules}
    return hash_of(codes)[:12]


def _modules(names: Iterable[str]) -> Iterator[tuple[str, Path]]:
    """Yield name and file of modules of seqbench in `COMPUTES`, and of those that they import."""
    waiting, seen = list(names), set(names)
    while waiting:
        name = waiting.pop()
        top, *parts = name.split(".")
        if top != "seqbench" or not all(part.isidentifier() for part in parts):
            continue
        base = PACKAGE.joinpath(*parts)
        file = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        if file.is_file() and ((parts and parts[0] in COMPUTES) or file == PACKAGE / "spec.py"):
            yield name, file
            new = _imports(name, file) - seen
            seen |= new
            waiting += sorted(new)


@cache
def _imports(name: str, file: Path) -> frozenset[str]:
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    return frozenset(imports_of(ast.parse(file.read_bytes()), package))


@cache
def _statements(path: Path) -> list[ast.stmt]:
    """Return a module's statements, an import for each name, and no texts in what is raised."""
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        match node:
            case ast.Raise(exc=ast.Call(args=values) as raised):
                raised.args = [value for value in values if not _is_text(value)]
    statements: list[ast.stmt] = []
    for statement in tree.body[1:] if has_docstring(tree) else tree.body:
        match statement:
            case ast.Import(names=names):
                statements += [ast.Import([name]) for name in names]
            case ast.ImportFrom(module=module, names=names, level=level):
                statements += [ast.ImportFrom(module, [name], level) for name in names]
            case _:
                statements.append(statement)
    return statements


def _is_text(value: ast.expr) -> bool:
    match value:
        case ast.JoinedStr() | ast.Constant(value=str()):
            return True
    return False


def without_unused_classes(
    modules: dict[str, list[ast.stmt]], used: frozenset[str]
) -> dict[str, list[ast.stmt]]:
    """Return modules without the classes and the imports of libraries that nothing else names.

    Only classes are left out, since a config chooses among them. Names are compared as they are
    written: a class counts, too, if only another one of that name is used.

    Args:
        modules: the statements of each module by its name.
        used: names of classes that are used elsewhere.
    """
    statements = {node for nodes in modules.values() for node in nodes}
    # A decorator may register its class, which is then used without its name.
    unused = {n for n in statements if isinstance(n, ast.ClassDef) and not n.decorator_list}
    new = statements - unused
    while new:
        used = used.union(*map(_named, new))
        new = {node for node in unused if node.name in used}
        unused -= new
    kept = {}
    for module, nodes in modules.items():
        left = [node for node in nodes if node not in unused]
        here = {None, *(name for node in left for name in _named(node))}
        kept[module] = [node for node in left if _from_library(node) in here]
    return kept


def _from_library(statement: ast.stmt) -> str | None:
    """Return the name that a statement imports from a library; `None` if it does something else."""
    match statement:
        case ast.Import(names=[alias]) | ast.ImportFrom(module=str(), names=[alias], level=0):
            source = getattr(statement, "module", alias.name)
            if source.partition(".")[0] != "seqbench" and alias.name != "*":
                return (alias.asname or alias.name).partition(".")[0]
    return None


@cache
def _named(statement: ast.stmt) -> frozenset[str]:
    """Return the names by which a statement may mean a class or an import."""
    names: set[str] = set()
    for node in ast.walk(statement):
        match node:
            case ast.Attribute(value=ast.Name(id="nn")):
                pass  # torch.nn.GRU is not seqbench's
            case ast.Name(id=name) | ast.Attribute(attr=name):
                names.add(name)
            case ast.Constant(value=str(path)):
                names.update(path.split("."))
            case ast.alias(name=name, asname=str()):
                names.add(name)
    return frozenset(names)
