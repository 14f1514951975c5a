"""`seqbench config show`: print the composed config as YAML."""

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
