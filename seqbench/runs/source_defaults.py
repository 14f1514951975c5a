"""Read the defaults of seqbench's classes from their source, without importing them.

Commands that only read records must not wait for torch, which models and tasks import.
"""

import ast
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]


@cache
def source_defaults(target: str) -> dict[str, Any]:
    """Return the defaults of the parameters of a class or function of seqbench.

    Args:
        target: its dotted path.

    Returns:
        name -> value, lists for tuples; empty for other targets. Defaults that are not literals are
        left out.
    """
    module, _, name = target.rpartition(".")
    found = {}
    for parameter, default in parameters(module, name):
        with suppress(ValueError):
            value = ast.literal_eval(default)
            found[parameter] = list(value) if isinstance(value, tuple) else value
    return found


def parameters(module: str, name: str) -> Iterator[tuple[str, ast.expr]]:
    """Yield name and default of the parameters of a class or function that have one."""
    body = statements(module)
    for node in body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            yield from arguments(node)
        elif isinstance(node, ast.ClassDef) and node.name == name:
            yield from of_class(module, node)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    yield from parameters(node.module, alias.name)


def of_class(module: str, node: ast.ClassDef) -> Iterator[tuple[str, ast.expr]]:
    """Yield name and default of the parameters of a class, which its base may define."""
    own = [f for f in node.body if isinstance(f, ast.FunctionDef) and f.name == "__init__"]
    if own:
        yield from arguments(own[0])
    elif any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        for item in node.body:
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.value:
                yield item.target.id, item.value
    else:
        for base in node.bases[:1]:
            if isinstance(base, ast.Name):
                yield from parameters(module, base.id)


def arguments(function: ast.FunctionDef) -> Iterator[tuple[str, ast.expr]]:
    """Yield name and default of the parameters of a function that have one."""
    given = function.args
    ordered = [*given.posonlyargs, *given.args]
    for argument, default in zip(reversed(ordered), reversed(given.defaults), strict=False):
        yield argument.arg, default
    for argument, keyword_default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        if keyword_default is not None:
            yield argument.arg, keyword_default


@cache
def statements(module: str) -> list[ast.stmt]:
    """Return the statements of a module of seqbench; of another, none."""
    package, *parts = module.split(".")
    if package != PACKAGE.name or not all(part.isidentifier() for part in parts):
        return []
    path = PACKAGE.joinpath(*parts).with_suffix(".py") if parts else PACKAGE / "__init__.py"
    return ast.parse(path.read_bytes()).body if path.is_file() else []
