"""`seqbench config`: print a composed config, or the settings of a choice with their meaning."""

from pathlib import Path
from typing import Annotated

import typer

from seqbench.cli import completion

app = typer.Typer(no_args_is_help=True, help="Look at configurations.")


@app.callback()
def config() -> None:
    """Look at configurations."""


@app.command("show")
def show(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Choices and values, as for `train`.",
            autocompletion=completion.overrides,
        ),
    ] = None,
    config_dir: Annotated[
        str | None, typer.Option(help="A folder with choices of your own.")
    ] = None,
) -> None:
    """Check and print the config of a run, with all defaults, as YAML."""
    import yaml

    from seqbench.config.compose import compose
    from seqbench.config.schema import with_defaults

    shown = with_defaults(compose(overrides or [], config_dir))
    print(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True), end="")


@app.command("explain")
def explain(
    choice: Annotated[
        str,
        typer.Argument(
            metavar="GROUP=NAME",
            help="A choice, such as task=forecast_file, model=tcn or trainer=default.",
            autocompletion=completion.overrides,
        ),
    ],
    config_dir: Annotated[
        str | None, typer.Option(help="A folder with choices of your own.")
    ] = None,
) -> None:
    """Print the YAML file of a choice: settings, defaults, meaning."""
    from seqbench.config.choices import choices_of, folders, groups, unknown_choice_error
    from seqbench.errors import ConfigError
    from seqbench.wording import plain, suggestion

    group, equals, name = choice.partition("=")
    if not equals:
        raise ConfigError(f"expected GROUP=NAME, such as task=forecast_file, got '{plain(choice)}'")
    if group not in (known := groups(config_dir)):
        raise ConfigError(f"no group named '{plain(group)}'{suggestion(group, known)}")
    if name not in choices_of(group, config_dir):
        raise unknown_choice_error(group, name, config_dir)
    files = [folder / group / f"{name}.yaml" for folder in folders(config_dir)]
    for file in filter(Path.is_file, files):
        print(file.read_text(encoding="utf-8"), end="")
        return
    raise ConfigError(f"{plain(choice)} is of a plug-in, and has no file: seqbench config show")
