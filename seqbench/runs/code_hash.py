"""Hash the code of users' classes; comments, docstrings and layout do not count."""

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

# A literal of C++, which is kept, or a comment, which is removed. A `'` after a digit separates it
# from the next one.
LITERAL_OR_COMMENT = re.compile(
    rb"""(?P<literal>R"(?P<end>[^()\\\s]*)\(.*?\)(?P=end)"|"(?:\\.|[^"\\\n])*\"|"""
    rb"""(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+')|//[^\n]*|/\*.*?\*/""",
    re.DOTALL,
)
NOT_THE_USERS = ("seqbench", "torch", *sys.stdlib_module_names)


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
    return text_of(tree)


def text_of(tree: ast.AST) -> bytes:
    """Return a syntax tree as bytes that do not depend on docstrings and the version of Python."""
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
            if name == "body" and isinstance(value, list) and has_docstring(node):
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


def has_docstring(node: ast.AST) -> bool:
    """Return True if a module, class or function has a docstring."""
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
        for imported in set(imports_of(tree, package)) - seen:
            seen.add(imported)
            source = _source(imported)
            if source and (imported.partition(".")[0] == top or not _is_installed(source)):
                waiting.append((imported, source))


def imports_of(tree: ast.AST, package: str) -> Iterator[str]:
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
