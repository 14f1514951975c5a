"""What a configuration may say, told from the signatures of what it builds."""

import collections.abc
import difflib
import inspect
import json
import sys
import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from seqbench.errors import ConfigError
from seqbench.wording import plain

ALL_ITEMS = CollectionCheckStrategy.ALL_ITEMS  # typeguard looks at the first one only, else

# What is built from the configuration, and which of its parameters the program itself supplies:
# by name, or the first one by position.
NODES: dict[str, tuple[int, frozenset[str]]] = {
    "task": (0, frozenset({"batch_size", "seed", "data_dir"})),
    "model": (1, frozenset()),
    "optimizer": (1, frozenset()),
    "schedule": (0, frozenset()),
    "trainer": (0, frozenset()),
}


# Packages that only some need, and the extra that brings them.
EXTRAS = {"tensorboard": "track", "wandb": "track", "mlflow": "track"}


def check_node(name: str, node: Any) -> None:
    """Hold one node against the signature of what its `_target_` names."""
    if not isinstance(node, dict) or not isinstance(node.get("_target_"), str):
        raise ConfigError(f"{name} must be a group of values with a _target_, not {node!r}")
    target = located(node["_target_"], name)
    by_position, supplied = NODES.get(name, (0, frozenset()))
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        raise ConfigError(f"{name}._target_: {node['_target_']} cannot be built") from None
    parameters = dict(list(signature.parameters.items())[by_position:])
    try:
        hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except NameError:  # a user's model may name types that it imports for type checkers only
        hints = {}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = {
        k: p for k, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    settable = [key for key in named if key not in supplied]
    for key, value in node.items():
        if key in ("_target_", "_partial_", "_recursive_", "_convert_"):
            continue
        if key not in settable and not takes_any:
            raise no_key(key, settable, f"{name}.")
        if key in hints:
            check_value(f"{name}.{key}", value, hints[key])
        try:
            json.dumps(value, allow_nan=False, sort_keys=True)
        except (ValueError, TypeError):
            raise ConfigError(f"{name}.{key} must be something JSON can say, not {value}") from None
    for key in settable:
        if named[key].default is inspect.Parameter.empty and key not in node:
            raise ConfigError(f"'{name}.{key}' is needed by {node['_target_']} and has no value")


def check_value(name: str, value: Any, hint: Any) -> None:
    """Hold a value against a type; a list may stand for a tuple, as YAML has no tuples."""
    for candidate in (value, tuple(value)) if isinstance(value, list) else (value,):
        try:
            # A bool is an int to Python, but `steps: true` is a slip.
            if not (isinstance(value, bool) and "bool" not in str(hint)):
                check_type(candidate, hint, collection_check_strategy=ALL_ITEMS)
                return
        except TypeCheckError:
            continue
    raise ConfigError(f"{name} must be {type_name(hint)}, not {value!r}")


def type_name(hint: Any) -> str:
    """A type in words a person reads in an error."""
    options = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(str(option) for option in options)
    if hint is type(None):
        return "null"
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        # An optimizer takes a rate as a tensor, too; a configuration cannot hold one.
        named = [type_name(option) for option in options if option.__name__ != "Tensor"]
        return " or ".join(named)
    if typing.get_origin(hint) in (list, tuple, collections.abc.Sequence):
        inner = [type_name(option) for option in options if option is not Ellipsis]
        fixed = typing.get_origin(hint) is tuple and Ellipsis not in options
        return f"a list of {f'{len(inner)} ' if fixed else ''}{' and '.join(dict.fromkeys(inner))}"
    return getattr(hint, "__name__", str(hint)) if not options else str(hint).replace("typing.", "")


def import_from(folder: Path) -> None:
    """Let modules be imported from a folder, unless the same name is installed.

    The folder goes last: a `queue.py` of the user's must not replace that of the standard library.
    """
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def located(target: str, name: str) -> Any:
    """Return the class or function that a `_target_` names.

    Targets other than those of seqbench and torch may be modules of the current folder.

    Args:
        target: dotted path.
        name: of the node, for the error.

    Raises:
        ConfigError: if it cannot be imported.
    """
    if target.partition(".")[0] not in ("seqbench", "torch"):
        import_from(Path.cwd())
    try:
        return get_object(target)
    except Exception as error:
        cause = error.__cause__ or error
        missing = cause.name if isinstance(cause, ModuleNotFoundError) else None
        hint = f": pip install 'seqbench[{EXTRAS[missing]}]'" if missing in EXTRAS else ""
        raise ConfigError(
            f"{name}._target_: cannot import {target}: {first_line(cause)}{hint}"
        ) from error


def no_key(key: str, known: Iterable[str], prefix: str = "") -> ConfigError:
    """Of a key that nobody knows; in one line, whatever the key is."""
    return ConfigError(f"no key '{prefix}{plain(key)}'{near_miss(key, known, prefix)}")


def near_miss(word: str, known: Iterable[str], prefix: str = "") -> str:
    """A hint that ends an error: the nearest known word, or all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, 1)
    if close:
        return f" (did you mean '{prefix}{close[0]}'?)"
    return f" (there are: {', '.join(known)})" if known else ""


def first_line(error: BaseException) -> str:
    """The first line of what an exception says."""
    return str(error).strip().split("\n")[0] or type(error).__name__
