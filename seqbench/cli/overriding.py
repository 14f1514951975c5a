"""Check what commands are given: options in place of overrides, and options without effect."""

from collections.abc import Mapping
from typing import Any

from typer.core import TyperCommand

from seqbench.cli.completion import ROOT
from seqbench.config.choices import groups
from seqbench.errors import ConfigError


class OverrideCommand(TyperCommand):
    """A command that answers `--model tcn` with `model=tcn`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words of the command line.

        Raises:
            ConfigError: if a key of the config is given as an option.
        """
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            option = str(getattr(error, "option_name", ""))
            key = option.lstrip("-").replace("-", "_")
            if key.partition(".")[0] not in (*groups(), *ROOT):
                raise
            raise ConfigError(
                f"no option {option}: expected {key}={value_of(option, given)}, without dashes"
            ) from error


def refuse(options: Mapping[str, object], reason: str) -> None:
    """Raise `ConfigError` for the first option that is given, since it would have no effect.

    Args:
        options: name -> value; a false value if it is not given.
        reason: follows the name in the message.
    """
    for name, value in options.items():
        if value:
            raise ConfigError(f"{name} {reason}")


def value_of(option: str, words: list[str]) -> str:
    """Return the value that a command line gives to an option, or VALUE."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name == option:
            value = value if equals else following
            return value if value and not value.startswith("-") else "VALUE"
    return "VALUE"
