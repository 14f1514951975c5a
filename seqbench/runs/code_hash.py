"""Hash the code that computes a result; comments, docstrings and layout do not count.

Of seqbench's own code, classes that the run does not use and the messages of errors do not count
either: a new option of another model does not make a result one of older code.
"""

import ast
import hashlib
import importlib.util
import inspect
import re
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]
# The parts of seqbench that compute results.
COMPUTES = ("spec.py", "datasets", "kernels", "models", "tasks", "training")
SUFFIXES = (".py", ".cpp", ".h")
# Nodes of a config that build what computes.
NODES = ("task", "model", "optimizer", "schedule", "trainer")
TRAINER, KERNELS = "seqbench.training.trainer", "seqbench.kernels"
# A literal of C++, which is kept, or a comment, which is removed. A `'` after a digit separates it
# from the next one.
LITERAL_OR_COMMENT = re.compile(
    rb"""(?P<literal>R"(?P<end>[^()\\\s]*)\(.*?\)(?P=end)"|"(?:\\.|[^"\\\n])*\"|"""
    rb"""(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+')|//[^\n]*|/\*.*?\*/""",
    re.DOTALL,
)
NOT_THE_USERS = ("seqbench", "torch", *sys.stdlib_module_names)


def source_hash(config: dict[str, Any]) -> str:
    """Return 12 hex digits of the SHA-256 of the sources of seqbench that compute a run.

    These are the modules of the trainer and of the classes that the config builds, and what they
    import of `COMPUTES`, without the classes that no such code names. If the config builds a user's
    class, which may import anything, they are all of `COMPUTES`.

    Args:
        config: the run's config; it may come from an untrusted record, and nothing is imported.
    """
    nodes = [node for name in NODES if isinstance(node := config.get(name), dict)]
    targets = {target for node in nodes if isinstance(target := node.get("_target_"), str)}
    return _source_hash(frozenset(targets))


@cache
def _source_hash(targets: frozenset[str]) -> str:
    built = [target for target in targets if not target.startswith("torch.")]
    found = dict(_own_modules([TRAINER, *(target.rpartition(".")[0] for target in built)]))
    is_known = all(target.rpartition(".")[0] in found for target in built)
    if not is_known:
        found = {}
    folders = [PACKAGE / part for part in (() if is_known else COMPUTES)]
    if any(name.startswith(KERNELS) for name in found):
        folders.append(PACKAGE / "kernels" / "csrc")
    files = {
        path.relative_to(PACKAGE).as_posix(): path
        for path in [*found.values(), *folders, *(p for f in folders for p in f.rglob("*"))]
        if path.suffix in SUFFIXES
    }
    modules = {name: _statements(path) for name, path in files.items() if path.suffix == ".py"}
    if is_known:
        used = frozenset(target.rpartition(".")[2] for target in built)
        modules = without_unused_classes(modules, used)
    codes = {name: b"\n".join(map(_own_code, nodes)) for name, nodes in modules.items()}
    codes |= {name: _own_cpp(path) for name, path in files.items() if name not in modules}
    return hash_of(codes)[:12]


def _own_modules(names: Iterable[str]) -> Iterator[tuple[str, Path]]:
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
            new = _own_imports(name, file) - seen
            seen |= new
            waiting += sorted(new)


@cache
def _own_imports(name: str, file: Path) -> frozenset[str]:
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    return frozenset(_imported(ast.parse(file.read_bytes()), package))


@cache
def _own_cpp(path: Path) -> bytes:
    return code_of(path)


@cache
def _statements(path: Path) -> list[ast.stmt]:
    """Return a module's statements without messages of errors; imports have one name each.

    What is raised with `Interrupted` and the like is no message and stays.
    """
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        match node:
            case ast.Raise(exc=ast.Call(func=ast.Name(id=name) as error)) if name.endswith("Error"):
                node.exc = error
    statements: list[ast.stmt] = []
    for statement in tree.body[1:] if _has_docstring(tree) else tree.body:
        match statement:
            case ast.ImportFrom(module=module, names=names, level=level):
                statements += [ast.ImportFrom(module, [name], level) for name in names]
            case _:
                statements.append(statement)
    return statements


@cache
def _own_code(statement: ast.stmt) -> bytes:
    return _text_of(statement)


def without_unused_classes(
    modules: dict[str, list[ast.stmt]], used: frozenset[str]
) -> dict[str, list[ast.stmt]]:
    """Return modules without the classes that no other code of them names, nor what these import.

    Functions stay, since code outside of `COMPUTES` may call them, and so do imports of seqbench.

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
    for name, nodes in modules.items():
        left = [node for node in nodes if node not in unused]
        here = frozenset[str]().union(*map(_named, left))
        kept[name] = [node for node in left if _from_library(node) in here | {None}]
    return kept


def _from_library(statement: ast.stmt) -> str | None:
    """Return the name that a statement imports from a library; `None` if it does something else."""
    match statement:
        case ast.ImportFrom(module=str(module), names=[alias], level=0):
            is_own = module.partition(".")[0] == "seqbench"
            return None if is_own else alias.asname or alias.name
    return None


@cache
def _named(statement: ast.stmt) -> frozenset[str]:
    """Return the names by which a statement may mean a class or an import."""
    names = set()
    for node in ast.walk(statement):
        match node:
            case ast.Attribute(value=ast.Name(id="nn")):
                pass  # torch.nn.GRU is not seqbench's
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.Constant(value=str(name)):
                names.add(name)
            case ast.alias(name=name, asname=str()):
                names.add(name)
    return frozenset(names)


@cache
def user_code_hash(target: str) -> str | None:
    """Return the SHA-256 of the code of a user's class or function.

    The hash covers the module that defines it and the user's modules that this module imports,
    directly or not: modules of the same package, and others that are not installed.

    Args:
        target: dotted path of the class or function.

    Returns:
        64 hex digits; `None` if the target belongs to seqbench, torch or Python, or has no source.
    """
    from hydra.utils import get_object  # listing runs must not wait for Hydra

    found = get_object(target)
    name = found.__module__
    if name.partition(".")[0] in NOT_THE_USERS:
        return None
    try:
        file = inspect.getsourcefile(found)
        return hash_of(_codes(name, Path(file))) if file else None
    except (OSError, TypeError):
        return None


def import_hash(target: str) -> str | None:
    """Return the SHA-256 of the code that importing a target runs, and of where it lies.

    Nothing is imported. The hash covers the target's module, its parent packages and what they
    import, as that of `user_code_hash`.

    Args:
        target: dotted path of a class or function.

    Returns:
        64 hex digits; `None` if the target belongs to seqbench, torch or Python, or has no source.
    """
    parts = target.split(".")
    names = [".".join(parts[: i + 1]) for i in range(len(parts))]
    files = {name: file for name in names if (file := _source(name))}
    if not files:
        return None
    covered: dict[str, bytes] = {}
    for name, file in files.items():
        covered |= _codes(name, file)
    places = "\n".join(str(file.absolute()) for file in files.values())
    return hashlib.sha256(f"{places}\n{hash_of(covered)}".encode()).hexdigest()


def hash_of(codes: dict[str, bytes]) -> str:
    """Return the SHA-256 of names and the code of each."""
    digest = hashlib.sha256()
    for name, code in sorted(codes.items()):
        digest.update(f"{name}\n".encode())
        digest.update(code)
    return digest.hexdigest()


def code_of(path: Path) -> bytes:
    """Return a file's code as bytes that do not depend on comments, docstrings and layout.

    The content of a `.py` file with a syntax error is returned as it is.
    """
    content = path.read_bytes()
    if path.suffix != ".py":
        return _cpp_words(content)
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return content
    return _text_of(tree)


def _text_of(tree: ast.AST) -> bytes:
    return "\n".join(_canonical(tree)).encode("utf-8", "surrogatepass")


def _cpp_words(content: bytes) -> bytes:
    """Return C++ without comments and with single spaces, except inside literals."""
    words, end = [], 0
    for found in LITERAL_OR_COMMENT.finditer(content):
        words += content[end : found.start()].split()
        words += filter(None, [found["literal"]])
        end = found.end()
    return b" ".join([*words, *content[end:].split()])


def _canonical(node: Any) -> Iterator[str]:
    """Yield a syntax tree as text that does not depend on the version of Python."""
    if isinstance(node, ast.AST):
        yield type(node).__name__
        for name in node._fields:
            value = getattr(node, name, None)
            if name == "body" and isinstance(value, list) and _has_docstring(node):
                value = value[1:]
            # Python versions differ in empty fields; `ctx` follows from the parent node.
            if value is not None and value != [] and name not in ("ctx", "kind", "type_comment"):
                yield name
                yield from _canonical(value)
    elif isinstance(node, list):
        yield f"[{len(node)}"
        for item in node:
            yield from _canonical(item)
    else:
        yield repr(node)


def _has_docstring(node: ast.AST) -> bool:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None


def _codes(name: str, file: Path) -> dict[str, bytes]:
    """Return the code of a user's module and of the user's modules that it imports."""
    return {name: code_of(path) for name, path in _modules(name, file)}


def _modules(name: str, file: Path) -> Iterator[tuple[str, Path]]:
    """Yield name and file of a user's module and of the user's modules that it imports."""
    top = name.partition(".")[0]
    waiting, seen = [(name, file)], {name}
    while waiting:
        name, file = waiting.pop()
        yield name, file
        try:
            tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError):
            continue
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        for imported in set(_imported(tree, package)) - seen:
            seen.add(imported)
            source = _source(imported)
            if source and (imported.partition(".")[0] == top or not _is_installed(source)):
                waiting.append((imported, source))


def _imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Yield the absolute names of a module's imports; for `from a import b` also `a.b`."""
    for node in ast.walk(tree):
        names: Iterable[str] = ()
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parent = "." * node.level + (node.module or "")
            if node.level:
                try:
                    parent = importlib.util.resolve_name(parent, package)
                except ImportError:
                    continue
            names = [parent, *(f"{parent}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[: i + 1]) for i in range(len(parts)))  # importing a.b runs a


def _source(name: str) -> Path | None:
    """Return a module's `.py` file without importing it; `None` for those of `NOT_THE_USERS`."""
    first, *rest = name.split(".")
    if first in NOT_THE_USERS:
        return None
    try:
        spec = importlib.util.find_spec(first)
        for i in range(len(rest)):
            folders = spec.submodule_search_locations if spec else None
            if folders is None:
                return None
            spec = PathFinder.find_spec(".".join([first, *rest[: i + 1]]), folders)
    except (ImportError, ValueError):
        return None
    path = Path(spec.origin) if spec and spec.origin else None
    return path if path and path.suffix == ".py" and path.is_file() else None


def _is_installed(path: Path) -> bool:
    folders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    folders |= {*site.getsitepackages(), site.getusersitepackages()}
    return any(path.resolve().is_relative_to(Path(folder).resolve()) for folder in folders)
