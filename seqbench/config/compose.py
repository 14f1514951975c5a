"""Compose what the user types into a config: Hydra orders the layers and sets single values."""

import re
import threading
from collections.abc import Sequence
from copy import deepcopy

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.defaults_list import create_defaults_list
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from seqbench.config import Config
from seqbench.config.check import check, with_integers
from seqbench.config.choices import choices_of, find_choice, folders, unknown_choice_error
from seqbench.config.finish import finish, with_digest
from seqbench.config.hydra_source import ChoiceSource, repository_of
from seqbench.config.overrides import PATHS, SHORT, for_hydra, quoted
from seqbench.config.precedence import layer_of, merge
from seqbench.config.remembered import remember
from seqbench.errors import ConfigError, first_line
from seqbench.runs.identity import FILES
from seqbench.wording import plain

# Ends the error for an override that only a search supports.
FOR_A_SEARCH = "is for a search: 'seqbench sweep ... search=optuna'"
# Groups that always need a choice: names of other choices contain theirs, `${task}_${model}`.
NAMED = ("task", "model", "budget", "protocol")
# Hydra's parsers share tables between threads.
HYDRA_LOCK = threading.RLock()


def compose(overrides: Sequence[str] = (), config_dir: str | None = None) -> Config:
    """Compose, finish and check a config.

    Safe to call from several threads, and inside another Hydra application.

    Args:
        overrides: as on the command line: `model=lstm`, `optimizer.lr=0.01`.
        config_dir: folder with the user's choices, searched before seqbench's.

    Raises:
        ConfigError: if an override names something that does not exist, or has the wrong type.
    """
    return Composer(config_dir).compose(overrides)


class Composer:
    """Composes many configs: the layers are merged once for each set of choices.

    Args:
        config_dir: folder with the user's choices, searched before seqbench's.

    Raises:
        ConfigError: if there is no such folder.
    """

    def __init__(self, config_dir: str | None = None) -> None:
        folders(config_dir)
        self.config_dir = config_dir
        self.source = ChoiceSource(config_dir)
        self.repository = CachingConfigRepository(repository_of(self.source))
        self.parser = OverridesParser.create()
        self.trees: dict[tuple[str, ...], tuple[DictConfig, dict[str, str]]] = {}

    def compose(self, overrides: Sequence[str]) -> Config:
        """Compose, finish and check a config.

        Raises:
            ConfigError: if an override names something that does not exist, or has the wrong type.
        """
        config = with_integers(finish(*self.composed(overrides)))
        check(config)
        remember(config, self.config_dir)
        return config

    def composed(self, overrides: Sequence[str]) -> tuple[DictConfig, dict[str, str]]:
        """Compose overrides with Hydra, without checks of keys and types.

        Returns:
            The tree, and the choice of each group.

        Raises:
            ConfigError: if Hydra cannot compose the overrides, or if one of them is a sweep.
        """
        for override in overrides:
            key, equals, _ = override.partition("=")
            if not key or (not equals and not override.startswith("~")):
                raise ConfigError(f"expected key=value, got '{plain(override)}'")
        with HYDRA_LOCK:
            parsed = self.parsed_for_a_run(overrides)
            self.check_choices(parsed)
            choices = [item for item in parsed if self.is_choice(item)]
            values = [item for item in parsed if not self.is_choice(item)]
            names = tuple(str(item.input_line) for item in choices)
            try:
                if names not in self.trees:
                    self.trees[names] = self.merged(choices)
                tree, chosen = self.trees[names]
                config = deepcopy(tree)
                ConfigLoaderImpl._apply_overrides_to_config(values, config)
            except ConfigError:
                raise
            except Exception as error:  # any kind: Hydra's, OmegaConf's or Python's
                raise explained(error) from error
        return config, chosen

    def changed(self, config: Config, overrides: Sequence[str]) -> Config:
        """Set values of a finished config, and check the result.

        A new file of the task loses the digest of the old one and gets its own.

        Args:
            config: as `compose` returned it; it is not changed.
            overrides: of values, not of choices: `trainer.steps=24`.

        Raises:
            ConfigError: if an override names something that does not exist, or has the wrong type.
        """
        with HYDRA_LOCK:
            parsed = self.parsed_for_a_run(overrides)
            try:
                tree = OmegaConf.create(config)
                ConfigLoaderImpl._apply_overrides_to_config(parsed, tree)
                result: Config = OmegaConf.to_container(tree, resolve=True)  # type: ignore[assignment]
            except Exception as error:  # any kind: Hydra's, OmegaConf's or Python's
                raise explained(error) from error
        keys, task = {item.key_or_group for item in parsed}, result["task"]
        for path, digest in FILES.items():
            if f"task.{path}" in keys and f"task.{digest}" not in keys and digest in task:
                task[digest] = None
        result["task"] = with_digest(task)
        result = with_integers(result)
        check(result)
        return result

    def parsed_for_a_run(self, overrides: Sequence[str]) -> list[Override]:
        """Parse overrides as the user types them.

        Raises:
            ConfigError: if one of them cannot be parsed, or is for a sweep.
        """
        parsed = self.parsed(for_hydra(overrides, self.config_dir))
        for item in parsed:
            refuse_sweep(item)
        return parsed

    def merged(self, choices: list[Override]) -> tuple[DictConfig, dict[str, str]]:
        """Return the merged layers of a set of choices, and the choice of each group."""
        if version.getbase() is version._UNSPECIFIED_:  # no other Hydra application has set it
            version.setbase("1.3")
        defaults = create_defaults_list(
            self.repository, "train", choices, prepend_hydra=False, skip_missing=False
        )
        tree: Config = {}
        for default in defaults.defaults:
            choice = find_choice(str(default.config_path), self.config_dir)
            assert choice is not None
            tree = merge(tree, layer_of(choice.content, default.package or ""))
        config = OmegaConf.create(tree)
        OmegaConf.set_struct(config, True)
        chosen = {group: str(name) for group, name in defaults.overrides.known_choices.items()}
        return config, chosen

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
                raise ConfigError(f"cannot read {plain(shown)}: {reason}") from error
        return found

    def is_choice(self, item: Override) -> bool:
        """Return True if an override selects or deletes a choice of a group."""
        return self.source.is_group(item.key_or_group) and not isinstance(item.value(), dict)

    def check_choices(self, parsed: Sequence[Override]) -> None:
        """Raise `ConfigError` for choices that do not exist, or that have no name."""
        for item in parsed:
            group = item.key_or_group
            if item.is_sweep_override() or not self.is_choice(item):
                continue
            value = item.value()
            if value in (None, "") and (not item.is_delete() or group in NAMED):
                known = ", ".join(choices_of(group, self.config_dir))
                raise ConfigError(f"{group} needs a choice: {known}")
            if value is None:
                continue
            if isinstance(value, bool | int | float):
                value = str(item.input_line).partition("=")[2]
            for name in value if isinstance(value, list) else [value]:
                if f"{group}={name}" == "hydra/sweeper=basic":  # Hydra's own, which works, too
                    continue
                if not self.source.is_config(f"{group}/{name}"):
                    label = {f"hydra/{long}": short for short, long in SHORT.items()}.get(group)
                    raise unknown_choice_error(group, str(name), self.config_dir, label)


def with_other_values(
    config: Config, overrides: Sequence[str], model_options: Sequence[str] = ()
) -> Config:
    """Return the config of a run with other values for an evaluation, checked.

    Args:
        config: of a run, without references.
        overrides: `task.KEY=VALUE`, or `model.KEY=VALUE` of `model_options`.
        model_options: options of the model that its weights do not depend on.

    Raises:
        ConfigError: if an override sets something else, or its key or its value is wrong.
    """
    allowed = [f"model.{name}" for name in model_options]
    words = []
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not (re.fullmatch(r"task\.[^_].*", key) or key in allowed):
            expected = " or ".join(["task.KEY=VALUE", *(f"{name}=VALUE" for name in allowed)])
            raise ConfigError(f"expected {expected}, got '{plain(override)}'")
        # A path may contain commas: nothing is swept here.
        words.append(f"{key}={quoted(value)}" if key in PATHS else override)
    return Composer().changed(config, words)


def refuse_sweep(item: Override) -> None:
    """Raise `ConfigError` for an override that is for a sweep."""
    key, _, value = str(item.input_line).lstrip("+").partition("=")
    if item.is_hydra_override():
        raise ConfigError(f"{key} is for a sweep: 'seqbench sweep'")
    if item.is_interval_sweep():
        raise ConfigError(f"{key}={value} {FOR_A_SEARCH}")
    if item.is_sweep_override():
        raise ConfigError(f"a run takes one {key}, not '{value}': 'seqbench sweep' takes several")


def explained(error: Exception) -> ConfigError:
    """Return an error with a one-line message for the user, from an error of Hydra."""
    while isinstance(error, ConfigCompositionException) and isinstance(
        error.__cause__, HydraException | OmegaConfBaseException
    ):
        error = error.__cause__
    return ConfigError(first_line(error))
