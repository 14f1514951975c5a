"""Configurations: composed by Hydra, finished and checked here before anything is built of them.

    what a person typed  ->  compose / finish  ->  a plain dict  ->  check  ->  build

Precedence, low to high: task, model, trainer, recipe, protocol, budget, command line.
"""

import collections.abc
import difflib
import hashlib
import inspect
import json
import logging
import sys
import types
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from seqbench.config_folder import CONFIG_FOLDER
from seqbench.errors import ConfigError, SeqbenchError
from seqbench.runs.config_file import read_config

Config = dict[str, Any]

ALL_ITEMS = CollectionCheckStrategy.ALL_ITEMS  # typeguard looks at the first one only, else

# Keys at the root that are plain values, and their types; the other keys are nodes.
VALUES: dict[str, Any] = {
    "choices": dict[str, str],
    "seed": int,
    "device": str,
    "threads": int | None,
    "data_dir": str | None,
    "output_dir": str,
    "budget": str,
    "protocol": str,
    "recipe": dict[str, Any],
}
# What is built from the configuration, and which of its parameters the program itself supplies:
# by name, or the first one by position.
NODES: dict[str, tuple[int, frozenset[str]]] = {
    "task": (0, frozenset({"batch_size", "seed", "data_dir"})),
    "model": (1, frozenset()),
    "optimizer": (1, frozenset()),
    "schedule": (0, frozenset()),
    "trainer": (0, frozenset()),
}
# What a recipe may hold besides values for the nodes.
RECIPE = ("source", "expected", "optimizer", "schedule")
# What an `auto` choice means where the recipe does not say.
FALLBACK = {"optimizer": "adam", "schedule": "constant"}
# Torch crashes when it is told to use some ten thousands.
MOST_THREADS = 1024
# Choices that may be missing, which Hydra then passes over in silence.
OPTIONAL = ("recipe", "budget_for")
# Code that a configuration found in a run folder may name: what runs are made of, and nothing else,
# because a command of ours can do harm too.
TRUSTED = ("seqbench.models", "seqbench.tasks", "seqbench.training", "torch.optim")

# It would print what it then raises, too.
logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)


def compose(overrides: Sequence[str] = (), config_dir: str | None = None) -> Config:
    """Compose, finish and check a configuration.

    Args:
        overrides: as on the command line: `model=lstm`, `optimizer.lr=0.01`.
        config_dir: a folder of the user's own choices, searched before ours.

    Raises:
        ConfigError: something is named that does not exist, or has the wrong type.
    """
    if config_dir and not Path(config_dir).is_dir():
        raise ConfigError(f"no folder of configurations at {config_dir}")
    for override in overrides:
        group, equals, name = override.partition("=")
        if not equals and not override.startswith("~"):
            raise ConfigError(f"values are given as key=value, and '{override}' is none")
        if group in ("task", "model", "budget") and "," in name:
            raise ConfigError(f"a run takes one {group}, not '{name}'")
        if group in OPTIONAL and name not in (known := choices_of(group, config_dir)):
            raise ConfigError(f"no {group} named '{name}'{near_miss(name, known)}")
    try:
        with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
            if config_dir:
                # `hydra.searchpath` would put it behind ours, and be parsed as an override is.
                loader = GlobalHydra.instance().config_loader()
                path = loader.get_search_path()
                path.prepend("user", f"file://{Path(config_dir).resolve()}", anchor="main")
                loader.repository.initialize_sources(path)  # type: ignore[attr-defined]
            composed = hydra_compose("train", free(overrides, config_dir), return_hydra_config=True)
        choices = dict(composed.hydra.runtime.choices)
    except Exception as error:  # of every kind there is: Hydra's, OmegaConf's, YAML's, Python's own
        raise explained(error, overrides) from error
    OmegaConf.set_struct(composed, False)
    composed.pop("hydra")
    config = finish(composed, choices)
    check(config)
    return config


def groups(config_dir: str | None = None) -> list[str]:
    """The names of the groups of choices: ours, and those in a folder of the user's."""
    folders = [CONFIG_FOLDER, *([Path(config_dir)] if config_dir else [])]
    return sorted({path.name for folder in folders for path in folder.iterdir() if path.is_dir()})


def free(overrides: Iterable[str], config_dir: str | None = None) -> list[str]:
    """Let every value be set, known to Hydra or not: `lr=1` becomes `++lr=1`.

    Whether a key exists is for `check` to say, which knows the signatures: the keys of an optimiser
    that the recipe names are not in the composed tree when Hydra looks.
    """
    known = groups(config_dir)
    result, keys = [], set()
    for override in overrides:
        key = override.split("=", 1)[0]
        keys.add(key.lstrip("+"))
        is_value = key[:1] not in "+~" and key not in known and not key.startswith("hydra")
        result.append(
            f"++{override}" if is_value and "=" in override and "@" not in key else override
        )
    # A run has a number of steps or of epochs: whoever names one means it instead of the other.
    for named, other in (("steps", "epochs"), ("epochs", "steps")):
        if f"trainer.{named}" in keys and f"trainer.{other}" not in keys:
            result.append(f"++trainer.{other}=null")
    return result


def finish(composed: DictConfig, choices: dict[str, str]) -> Config:
    """From what Hydra composed to the plain configuration of a run.

    Args:
        composed: without the `hydra` node.
        choices: what was chosen of each group.

    Raises:
        ConfigError: a value refers to another that does not exist.
    """
    try:
        config: Config = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise ConfigError(first_line(error)) from error
    recipe = config.setdefault("recipe", {})
    if isinstance(recipe, dict):
        for name, fallback in FALLBACK.items():
            chosen = recipe.pop(name, None) or read_choice(name, fallback)
            node = config.get(name) or {}
            for key, group in ((f"recipe.{name}", chosen), (name, node)):
                if not isinstance(group, dict):
                    raise ConfigError(f"{key} must be a group of values, not {group!r}")
            # A choice on the command line replaces the recipe's whole; single values change it.
            config[name] = node if "_target_" in node else chosen | node
    task = config.get("task")
    if isinstance(task, dict) and isinstance(task.get("path"), str) and "sha256" in task:
        path = Path(task["path"]).expanduser().absolute()
        if path.is_file() and task["sha256"] is None:
            task |= {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    if not {"task", "model"} <= choices.keys():
        raise ConfigError("no task or no model is chosen: a train.yaml of yours hides ours")
    config["choices"] = {"task": choices["task"], "model": choices["model"]}
    return config


def read_choice(group: str, name: str) -> dict[str, Any]:
    """One of our own YAML files, as it is."""
    return yaml.safe_load((CONFIG_FOLDER / group / f"{name}.yaml").read_text(encoding="utf-8"))


def check(config: Config) -> None:
    """Hold a configuration against the signatures of what it builds.

    Raises:
        ConfigError: an unknown key, a missing one, or a value of the wrong type; in one line.
    """
    for key, value in config.items():
        if key in VALUES:
            check_value(key, value, VALUES[key])
        elif key not in NODES:
            raise ConfigError(f"no key '{key}'{near_miss(key, [*VALUES, *NODES])}")
    for key in [*VALUES, *NODES]:
        if key not in config:
            raise ConfigError(f"the configuration has no '{key}'")
    for key in config["recipe"]:
        if key not in RECIPE:
            raise ConfigError(f"no key 'recipe.{key}'{near_miss(key, RECIPE, 'recipe.')}")
    for key in NODES:
        check_node(key, config[key])
    if not 0 <= config["seed"] < 2**63:
        raise ConfigError(f"seed must be in [0, 2^63), not {config['seed']}")
    if config["threads"] is not None and not 1 <= config["threads"] <= MOST_THREADS:
        raise ConfigError(f"threads must be 1 to {MOST_THREADS}, not {config['threads']}")
    for key in ("task", "model"):
        name = config["choices"].get(key, "")
        if not name or not name.isprintable():
            raise ConfigError(f"choices.{key} must be the name of a {key}, not {name!r}")


def check_node(name: str, node: Any) -> None:
    """Hold one node against the signature of what its `_target_` names."""
    if not isinstance(node, dict) or not isinstance(node.get("_target_"), str):
        raise ConfigError(f"{name} must be a group of values with a _target_, not {node!r}")
    target = located(node["_target_"], name)
    by_position, supplied = NODES[name]
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
            raise ConfigError(f"no key '{name}.{key}'{near_miss(key, settable, f'{name}.')}")
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
        # An optimiser takes a rate as a tensor, too; a configuration cannot hold one.
        named = [type_name(option) for option in options if option.__name__ != "Tensor"]
        return " or ".join(named)
    if typing.get_origin(hint) in (list, tuple, collections.abc.Sequence):
        inner = [type_name(option) for option in options if option is not Ellipsis]
        return "a list of " + " and ".join(dict.fromkeys(inner))
    return getattr(hint, "__name__", str(hint)) if not options else str(hint).replace("typing.", "")


def located(target: str, name: str) -> Any:
    """The class or function that a `_target_` names."""
    if "" not in sys.path:
        sys.path.insert(0, "")  # a user's own model may stand in the current folder
    try:
        return get_object(target)
    except Exception as error:
        raise ConfigError(
            f"{name}._target_: cannot import {target}: {first_line(error.__cause__ or error)}"
        ) from error


def build(name: str, config: Config, *args: Any, **kwargs: Any) -> Any:
    """Build what a node describes.

    Args:
        name: of the node.
        config: the whole configuration, checked.
        *args: what the program supplies by position.
        **kwargs: what it supplies by name.

    Raises:
        ConfigError: the constructor refuses its values.
    """
    try:
        built = instantiate(config[name], *args, _convert_="all", _partial_=False, **kwargs)
    except SeqbenchError:
        raise
    except Exception as error:
        cause = error.__cause__ or error
        if isinstance(cause, SeqbenchError):
            raise cause from error
        if isinstance(cause, OSError):
            raise cause from error
        kind = "" if isinstance(cause, (ValueError, RuntimeError)) else f"{type(cause).__name__}: "
        raise ConfigError(f"{name}: {kind}{first_line(cause)}") from error
    return built


def trust(config: Config, also: Sequence[str] = ()) -> None:
    """Refuse a configuration that came with a run folder and names code that is not trusted.

    Args:
        config: from the folder.
        also: packages that the user trusts too.

    Raises:
        ConfigError: something else than ours, torch.optim's or `also` is named.
    """
    trusted = (*TRUSTED, *also)

    def is_trusted(name: str) -> bool:
        return any(name == prefix or name.startswith(f"{prefix}.") for prefix in trusted)

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            target = value.get("_target_")
            if target is not None:
                # The spelling decides what is imported, the object found what is built.
                found = located(target, "a node") if is_trusted(str(target)) else None
                if not is_trusted(str(getattr(found, "__module__", ""))):
                    raise ConfigError(f"the run names {target}: add --trust {target} to build it")
            for item in value.values():
                walk(item)
        elif isinstance(value, str) and ("${" in value or value == "???"):
            # What a run keeps is resolved, and whole. Hydra would resolve this when it builds: it
            # could read the environment, or turn into a node that nobody has judged.
            raise ConfigError(f"the run's configuration refers to something outside: {value!r}")
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(config)


def read(path: Path, also: Sequence[str] = ()) -> Config:
    """The configuration of a run folder, checked, and trusted no further than `trust` allows."""
    config = read_config(path)
    trust(config, also)
    check(config)
    return config


def explained(error: Exception, overrides: Sequence[str]) -> ConfigError:
    """One line for a person, from what Hydra says."""
    while isinstance(error, ConfigCompositionException) and isinstance(
        error.__cause__, (HydraException, OmegaConfBaseException)
    ):
        error = error.__cause__
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = error.missing_cfg_file.rpartition("/")
        if group:
            return ConfigError(f"no {group} named '{name}'{near_miss(name, error.options)}")
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return ConfigError(f"{mark.name.strip()}, line {mark.line + 1}: {error.problem}")
    for override in overrides:
        key, equals, value = override.partition("=")
        if equals and key in NODES and value in ("", "null"):
            return ConfigError(f"{key} needs a choice: {', '.join(choices_of(key))}")
    return ConfigError(first_line(error))


def choices_of(group: str, config_dir: str | None = None) -> list[str]:
    """What can be chosen of a group: ours, and what is in a folder of the user's."""
    folders = [CONFIG_FOLDER, *([Path(config_dir)] if config_dir else [])]
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})


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
