"""Check a config's nodes against the signatures of the classes and functions that they build."""

import collections.abc
import inspect
import sys
import types
import typing
from contextlib import suppress
from typing import Any

from hydra._internal.utils import _locate
from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from seqbench.config import Config
from seqbench.config.messages import unknown_key_error
from seqbench.errors import ConfigError, first_line
from seqbench.runs.config_file import is_plain
from seqbench.runs.defaults import changed_defaults, signature_defaults
from seqbench.wording import plain, suggestion

ALL_ITEMS = CollectionCheckStrategy.ALL_ITEMS  # by default typeguard checks only the first item

# The nodes of a config, each with the parameters that seqbench supplies: the number of those by
# position, and the names of those by keyword.
NODES: dict[str, tuple[int, frozenset[str]]] = {
    "task": (0, frozenset({"batch_size", "seed", "data_dir"})),
    "model": (1, frozenset()),
    "optimizer": (1, frozenset()),
    "schedule": (0, frozenset()),
    "trainer": (0, frozenset()),
}

# Options that seqbench chooses by the machine, if the config leaves them out.
CHOSEN = ("optimizer.fused",)
# Optional packages, and the extra that installs them.
EXTRAS = {"tensorboard": "track", "wandb": "track", "mlflow": "track"}


def check_node(name: str, node: Any) -> None:
    """Check a node against the signature of its `_target_`.

    Args:
        name: name of the node, a key of `NODES` or `tracker.<name>`.
        node: `_target_` and the values of its parameters.

    Raises:
        ConfigError: if the node has no `_target_` that can be imported and called, if a key is
            unknown or missing, or if a value has the wrong type or no form in JSON.
    """
    if not isinstance(node, dict) or not isinstance(node.get("_target_"), str):
        raise ConfigError(f"{name} must be a group of values with a _target_, not {node!r}")
    target = import_target(node["_target_"], name)
    by_position, supplied = NODES.get(name, (0, frozenset()))
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        raise ConfigError(f"{name}._target_: {node['_target_']} cannot be built") from None
    parameters = dict(list(signature.parameters.items())[by_position:])
    hints = hints_of(target)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = {
        k: p for k, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    settable = [key for key in named if key not in supplied]
    for key, value in node.items():
        if key in ("_target_", "_partial_", "_recursive_", "_convert_"):
            continue
        if key not in settable and not takes_any:
            raise unknown_key_error(key, settable, f"{name}.")
        if key in hints:
            check_value(f"{name}.{key}", value, hints[key])
        if not is_plain(value):
            raise ConfigError(f"{name}.{key} must be JSON-serializable, not {value}")
    for key in settable:
        if named[key].default is inspect.Parameter.empty and key not in node:
            raise ConfigError(f"'{name}.{key}' is needed by {node['_target_']} and has no value")


def hints_of(target: Any) -> dict[str, Any]:
    """Return the type hints of what a target takes; none if they name types that do not exist."""
    try:
        return typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except NameError:  # a user's model may use types that it imports under TYPE_CHECKING
        return {}


def integers_in(node: Any, name: str) -> Any:
    """Return a node with whole floats, such as 1e4, as ints where its target takes ints only.

    A node that cannot be built is returned as it is, for `check_node` to refuse.
    """
    if not isinstance(node, dict) or not isinstance(node.get("_target_"), str):
        return node
    try:
        hints = hints_of(import_target(node["_target_"], name))
    except ConfigError:
        return node
    return {k: as_integer(v, hints[k]) if k in hints else v for k, v in node.items()}


def as_integer(value: Any, hint: Any) -> Any:
    """Return a whole float, or a list with some, as ints if a type accepts only those."""
    items = value if isinstance(value, list) else [value]
    whole = [int(x) if isinstance(x, float) and x.is_integer() else x for x in items]
    converted = whole if isinstance(value, list) else whole[0]
    return converted if not fits(value, hint) and fits(converted, hint) else value


def with_defaults(config: Config) -> Config:
    """Return a checked config whose nodes name every option, at its default if nothing sets it."""
    return config | {name: config[name] | rest for name, rest in defaults_of(config).items()}


def defaults_of(config: Config) -> dict[str, dict[str, Any]]:
    """Return node -> the options that a checked config leaves out, at their defaults."""
    found: dict[str, dict[str, Any]] = {}
    for name, (by_position, supplied) in NODES.items():
        node = config[name]
        defaults = signature_defaults(node["_target_"]) | changed_defaults(node["_target_"])
        parameters = list(inspect.signature(import_target(node["_target_"], name)).parameters)
        options = {
            k: defaults[k] for k in parameters[by_position:] if k in defaults.keys() - supplied
        }
        rest = {k: v for k, v in options.items() if k not in node and is_plain(v)}
        rest = {k: v for k, v in rest.items() if f"{name}.{k}" not in CHOSEN}
        found |= {name: rest} if rest else {}
    return found


def check_encoding(value: Any, key: str = "") -> None:
    """Raise `ConfigError` if a text, such as a path, is not UTF-8: config.yaml cannot hold it."""
    if isinstance(value, dict):
        for name, item in value.items():
            check_encoding(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for item in value:
            check_encoding(item, key)
    elif isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ConfigError(f"{key} must be UTF-8, and {value!a} is not") from None


def check_value(name: str, value: Any, hint: Any) -> None:
    """Raise `ConfigError` if a value is not of a type."""
    if not fits(value, hint):
        raise ConfigError(f"{name} must be {type_name(hint)}, not {value!r}")


def fits(value: Any, hint: Any) -> bool:
    """Return True if a value is of a type; lists match tuples, which YAML lacks."""
    items = value if isinstance(value, list) else [value]
    # In Python a bool is an int, but `steps: true` is a mistake.
    if any(isinstance(item, bool) for item in items) and not any(
        name in str(hint) for name in ("bool", "Any", "object")
    ):
        return False
    for candidate in (value, tuple(value)) if isinstance(value, list) else (value,):
        with suppress(TypeCheckError):
            check_type(candidate, hint, collection_check_strategy=ALL_ITEMS)
            return True
    return False


def type_name(hint: Any) -> str:
    """Return a readable name of a type for error messages, as in `a list of int`."""
    options = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(str(option) for option in options)
    if hint is type(None):
        return "null"
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        # torch's optimizers also accept the learning rate as a tensor, which a config cannot hold.
        named = [type_name(option) for option in options if option.__name__ != "Tensor"]
        return " or ".join(named)
    if typing.get_origin(hint) in (list, tuple, collections.abc.Sequence):
        inner = [type_name(option) for option in options if option is not Ellipsis]
        fixed = typing.get_origin(hint) is tuple and Ellipsis not in options
        return f"a list of {f'{len(inner)} ' if fixed else ''}{' and '.join(dict.fromkeys(inner))}"
    return getattr(hint, "__name__", str(hint)) if not options else str(hint).replace("typing.", "")


def import_from(folder: str) -> None:
    """Let modules be imported from a folder, unless the same name is installed.

    The folder goes last: a `queue.py` of the user must not replace the standard library's.

    Args:
        folder: a path, or the empty string for whatever folder is the current one.
    """
    if folder not in sys.path:
        sys.path.append(folder)


def import_target(target: str, name: str) -> Any:
    """Return the class or function that a `_target_` names.

    Targets outside seqbench and torch may also be in modules of the current folder.

    Args:
        target: dotted path.
        name: name of the node, for the error.

    Raises:
        ConfigError: if the target cannot be imported.
    """
    if target.partition(".")[0] not in ("seqbench", "torch"):
        import_from("")
    try:
        return _locate(target)
    except Exception as error:
        cause = error.__cause__ or error
        missing = cause.name if isinstance(cause, ModuleNotFoundError) else None
        module, _, attribute = target.rpartition(".")
        if missing == target and module in sys.modules:
            known = [key for key, value in vars(sys.modules[module]).items() if callable(value)]
            reason = f"{plain(module)} has no {plain(attribute)}{suggestion(attribute, known)}"
            raise ConfigError(f"{name}._target_: {reason}") from error
        hint = f": pip install 'seqbench[{EXTRAS[missing]}]'" if missing in EXTRAS else ""
        raise ConfigError(
            f"{name}._target_: cannot import {target}: {first_line(cause)}{hint}"
        ) from error
