"""Compose configs with Hydra, finish and check them, and build objects from them.

    overrides  ->  Composer.composed  ->  finish  ->  a plain dict  ->  check  ->  build

Precedence, low to high: task, model, trainer, recipe, protocol, budget, command line.
"""

import logging
import re
from collections.abc import Iterable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from seqbench.config.choices import (
    CONFIG_FOLDER,
    PLUGGABLE,
    choices_of,
    groups,
    plugins,
    read_choice,
)
from seqbench.config.overrides import SHORT, free
from seqbench.config.schema import (
    NODES,
    check_encoding,
    check_node,
    check_value,
    first_line,
    near_miss,
    no_key,
)
from seqbench.config.trust import trust
from seqbench.errors import ConfigError, RunError, SeqbenchError
from seqbench.runs.config_file import read_config
from seqbench.user_files import expand_home, sha256_of

Config = dict[str, Any]

# Root keys that are not nodes of `NODES`, and their types.
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
    "tracker": dict[str, Any],
}
# Keys that a recipe may have under `recipe`.
RECIPE = ("source", "expected", "optimizer", "schedule")
# The meaning of `optimizer=auto` and `schedule=auto` if the recipe names none.
FALLBACK = {"optimizer": "adam", "schedule": "constant"}
# torch crashes if it is set to use tens of thousands of threads.
MOST_THREADS = 1024
# Groups that always need a choice: names of other choices contain theirs, `${task}_${model}`.
NAMED = ("task", "model", "budget", "protocol")
# Optional groups: Hydra silently ignores a choice that does not exist.
OPTIONAL = ("recipe", "budget_for", "protocol_for")

# Hydra would log each error that it also raises.
logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)


def compose(overrides: Sequence[str] = (), config_dir: str | None = None) -> Config:
    """Compose, finish and check a config.

    Args:
        overrides: as on the command line: `model=lstm`, `optimizer.lr=0.01`.
        config_dir: folder with the user's choices, searched before seqbench's.

    Raises:
        ConfigError: if an override names something that does not exist, or has the wrong type.
    """
    with Composer(config_dir) as composer:
        return composer.compose(overrides)


# Ends the error for an override that only a search supports.
FOR_A_SEARCH = "is for a search: 'seqbench sweep ... search=optuna'"


class Composer:
    """A context in which configs are composed; Hydra's state is global, so one at a time.

    Composing the choices takes Hydra 50 ms, so the trees are cached by choices, and values are set
    in a copy the way Hydra sets them. A sweep over a thousand seeds is composed in seconds.

    Args:
        config_dir: folder with the user's choices, searched before seqbench's.

    Raises:
        ConfigError: if there is no such folder.
    """

    def __init__(self, config_dir: str | None = None) -> None:
        if config_dir and not Path(config_dir).is_dir():
            raise ConfigError(f"no folder of configurations at {config_dir}")
        self.config_dir = config_dir
        self.trees: dict[tuple[str, ...], tuple[DictConfig, dict[str, str]]] = {}

    def __enter__(self) -> "Composer":
        self.context = initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3")
        self.context.__enter__()
        if self.config_dir:
            # `hydra.searchpath` would be searched after seqbench's, and parsed as an override.
            loader = GlobalHydra.instance().config_loader()
            path = loader.get_search_path()
            path.prepend("user", f"file://{Path(self.config_dir).resolve()}", anchor="main")
            loader.repository.initialize_sources(path)  # type: ignore[attr-defined]
        for group in PLUGGABLE:
            for name, node in plugins(group).items():
                ConfigStore.instance().store(name, node, group, provider="plug-in")
        self.parser = OverridesParser.create(GlobalHydra.instance().config_loader())
        return self

    def __exit__(self, *exception: Any) -> None:
        self.context.__exit__(*exception)

    def multirun(self, overrides: Sequence[str], task: Any) -> Any:
        """Sweep over overrides with Hydra: its sweeper makes the jobs, its launcher runs them.

        Args:
            overrides: as on the command line: `seed=0,1,2`.
            task: object that Hydra passes to the launcher as its task function.

        Returns:
            The result of Hydra's `multirun`.

        Raises:
            ConfigError: if an override names something that does not exist, or has the wrong type.
        """
        words = free(overrides, self.config_dir)
        for word in words:
            group, _, name = word.partition("=")
            for short, long in SHORT.items():
                known = choices_of(f"hydra/{long}", self.config_dir)
                # Hydra's basic sweeper is not among seqbench's choices, but works.
                if group == f"hydra/{long}" and name not in known and word != "hydra/sweeper=basic":
                    raise ConfigError(f"no {short} named '{name}'{near_miss(name, known)}")
        try:
            parsed = self.parsed(words)
            self.check_choices(parsed)
            sweepers = [word for word in words if word.startswith("hydra/sweeper=")]
            if sweepers in ([], ["hydra/sweeper=basic"]):
                for item in parsed:
                    typed = str(item.input_line).lstrip("+").replace("hydra.sweeper.", "search.")
                    if item.is_interval_sweep() or typed.startswith("search."):
                        raise ConfigError(f"{typed} {FOR_A_SEARCH}")
            return GlobalHydra.instance().hydra.multirun(  # type: ignore[union-attr]
                "train", task, words, with_log_configuration=False
            )
        except (HydraException, OmegaConfBaseException) as error:
            raise explained(error) from error

    def compose(self, overrides: Sequence[str]) -> Config:
        """Compose, finish and check a config.

        Raises:
            ConfigError: if an override names something that does not exist, or has the wrong type.
        """
        config = finish(*self.composed(overrides))
        check(config)
        return config

    def composed(self, overrides: Sequence[str]) -> tuple[DictConfig, dict[str, str]]:
        """Compose overrides with Hydra, without checks of keys and types.

        Returns:
            The tree without its `hydra` node, and the choice of each group.

        Raises:
            ConfigError: if Hydra cannot compose the overrides, or if one of them is a sweep.
        """
        for override in overrides:
            group, equals, name = override.partition("=")
            if not group or (not equals and not override.startswith("~")):
                raise ConfigError(f"expected key=value, got '{override}'")
            if group in OPTIONAL and name not in (known := choices_of(group, self.config_dir)):
                raise ConfigError(f"no {group} named '{name}'{near_miss(name, known)}")
        freed = free(overrides, self.config_dir)
        known = groups(self.config_dir)
        values = [
            override
            for override in freed
            if override.startswith("++")
            or (override.startswith("~") and override[1:].partition("=")[0] not in known)
        ]
        choices = tuple(override for override in freed if override not in values)
        try:
            parsed = self.parsed([*choices, *values])
            for item in parsed:
                if item.is_sweep_override():
                    key, _, value = str(item.input_line).lstrip("+").partition("=")
                    if item.is_interval_sweep():
                        raise ConfigError(f"{key}={value} {FOR_A_SEARCH}")
                    raise ConfigError(
                        f"a run takes one {key}, not '{value}': 'seqbench sweep' takes several"
                    )
            self.check_choices(parsed)
            if choices not in self.trees:
                tree = hydra_compose("train", list(choices), return_hydra_config=True)
                chosen = dict(tree.hydra.runtime.choices)
                OmegaConf.set_struct(tree, False)
                tree.pop("hydra")
                self.trees[choices] = tree, chosen
            tree, chosen = self.trees[choices]
            tree = deepcopy(tree)
            ConfigLoaderImpl._apply_overrides_to_config(parsed[len(choices) :], tree)
        except ConfigError:
            raise
        except Exception as error:  # any kind: Hydra's, OmegaConf's, YAML's or Python's
            raise explained(error) from error
        return tree, chosen

    def parsed(self, overrides: Sequence[str]) -> list[Override]:
        """Parse overrides with Hydra's parser.

        Raises:
            ConfigError: if one of them cannot be parsed.
        """
        found = []
        for override in overrides:
            try:
                found.append(self.parser.parse_override(override))
            except Exception as error:  # from the parser, or from the generated code below it
                # The message continues with a long list of expected tokens.
                reason, _, _ = first_line(error).partition(" expecting {")
                shown = override.removeprefix("++")
                raise ConfigError(f"cannot read {shown}: {reason}") from error
        return found

    def check_choices(self, parsed: Iterable[Override]) -> None:
        """Raise `ConfigError` for choices that Hydra cannot handle: empty ones and numbers."""
        every = groups(self.config_dir)
        for item in parsed:
            group = item.key_or_group
            if group not in every or item.is_sweep_override():
                continue
            known = choices_of(group, self.config_dir)
            value = item.value()
            if value in (None, "") and (not item.is_delete() or group in NAMED):
                raise ConfigError(f"{group} needs a choice: {', '.join(known)}")
            if isinstance(value, bool | int | float):
                _, _, name = str(item.input_line).partition("=")
                raise ConfigError(f"no {group} named '{name}'{near_miss(name, known)}")


def finish(composed: DictConfig, choices: dict[str, str]) -> Config:
    """Return the plain config of a run from the tree that Hydra composed.

    Resolves references, replaces `auto` by the recipe's optimizer and schedule, expands `~`, and
    adds the digest of a task's text file.

    Args:
        composed: the tree without its `hydra` node.
        choices: the choice of each group.

    Raises:
        ConfigError: if a reference cannot be resolved, an optimizer or schedule is not a node, a
            folder's name is empty, or task or model are not chosen.
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
            # A choice on the command line replaces the recipe's node; single values only update it.
            config[name] = node if "_target_" in node else chosen | node
    for key in ("output_dir", "data_dir"):
        if config.get(key) == "":
            raise ConfigError(f"{key} names no folder")
        if str(config.get(key)).startswith("~"):
            config[key] = str(expand_home(config[key]))
    task = config.get("task")
    if isinstance(task, dict) and isinstance(task.get("path"), str) and "sha256" in task:
        path = expand_home(task["path"]).absolute()
        if path.is_file() and task["sha256"] is None:
            task |= {"path": str(path), "sha256": sha256_of(path)}
    if not {"task", "model"} <= choices.keys():
        raise ConfigError("no task or no model is chosen: a train.yaml of yours hides ours")
    config["choices"] = {"task": choices["task"], "model": choices["model"]}
    return config


def check(config: Config) -> None:
    """Check a config against the signatures of what it builds.

    Raises:
        ConfigError: if a key is unknown or missing, or a value has the wrong type or is out of
            range; in one line.
    """
    for key, value in config.items():
        if key in VALUES:
            check_value(key, value, VALUES[key])
        elif key not in NODES:
            nodes = [node for node in NODES if isinstance(config.get(node), dict)]
            within = [f"'{n}.{key}'" for n in nodes if key in config[n] and key[:1] != "_"]
            if within:
                raise ConfigError(f"no key '{key}' (did you mean {' or '.join(within)}?)")
            raise no_key(key, [*VALUES, *NODES])
    for key in [*VALUES, *NODES]:
        if key not in config:
            raise ConfigError(f"the configuration has no '{key}'")
    check_encoding(config)
    for key in config["recipe"]:
        if key not in RECIPE:
            raise no_key(key, RECIPE, "recipe.")
    for key in NODES:
        check_node(key, config[key])
    for name, node in config["tracker"].items():
        check_node(f"tracker.{name}", node)
    if not 0 <= config["seed"] < 2**63:
        raise ConfigError(f"seed must be in [0, 2^63), not {config['seed']}")
    if not re.fullmatch(r"auto|cpu|cuda(:(0|[1-9]\d?))?", config["device"]):
        name = config["device"]
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:N, not '{name}'")
    if config["threads"] is not None and not 1 <= config["threads"] <= MOST_THREADS:
        raise ConfigError(f"threads must be 1 to {MOST_THREADS}, not {config['threads']}")
    for key in ("task", "model"):
        name = config["choices"].get(key, "")
        if not name or not name.isprintable():
            raise ConfigError(f"choices.{key} must be the name of a {key}, not {name!r}")


def build(name: str, config: Config, *args: Any, **kwargs: Any) -> Any:
    """Build the object that a node describes.

    Args:
        name: key of the node in `config`.
        config: a checked config, or a part of one that contains the node.
        *args: arguments that seqbench supplies by position.
        **kwargs: arguments that seqbench supplies by name.

    Raises:
        ConfigError: if the constructor rejects its values.
        RunError: if the object does not fit into memory.
        OSError: if the constructor raises one.
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
        from seqbench.out_of_memory import is_out_of_memory  # not at the top: imports torch

        if is_out_of_memory(cause):
            raise RunError(f"out of memory: the {name} does not fit; try smaller sizes") from error
        kind = "" if isinstance(cause, (ValueError, RuntimeError)) else f"{type(cause).__name__}: "
        raise ConfigError(f"{name}: {kind}{first_line(cause)}") from error
    return built


def read(path: Path, also: Sequence[str] = ()) -> Config:
    """Read and check a run's config file, without trackers and data folder.

    Args:
        path: the run's `config.yaml`.
        also: packages or modules that the user trusts besides `trust.TRUSTED`.

    Raises:
        ConfigError: if the file cannot be read, names untrusted code, or fails `check`.
    """
    config = read_config(path)
    trust(config, also)
    # The author of a foreign config must not choose where datasets and trackers write or send.
    config |= {"tracker": {}, "data_dir": None}
    check(config)
    return config


def explained(error: Exception) -> ConfigError:
    """Return an error with a one-line message for the user, from an error of Hydra."""
    while isinstance(error, ConfigCompositionException) and isinstance(
        error.__cause__, (HydraException, OmegaConfBaseException)
    ):
        error = error.__cause__
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = error.missing_cfg_file.rpartition("/")
        if group:
            group = {f"hydra/{name}": short for short, name in SHORT.items()}.get(group, group)
            return ConfigError(f"no {group} named '{name}'{near_miss(name, error.options)}")
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return ConfigError(f"{mark.name.strip()}, line {mark.line + 1}: {error.problem}")
    return ConfigError(first_line(error))
