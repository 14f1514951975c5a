"""`seqbench check`: check a model or a task against its contracts."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seqbench.cli.data import DataDir
from seqbench.cli.sweep import ConfigDir
from seqbench.errors import ConfigError, SeqbenchError, first_line

if TYPE_CHECKING:
    from seqbench.config.compose import Composer

# Mark and color of a contract that passes, fails or does not apply.
MARKS = {True: ("✓", "green"), False: ("✗", "red"), None: ("-", "dim")}
# More than one example, but few enough for a small dataset.
BATCH_SIZE = 8


def check(
    target: Annotated[
        str,
        typer.Argument(help="Name of a model or task, or a class: package.Class or file.py:Class."),
    ],
    values: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Arguments of the constructor."),
    ] = None,
    config_dir: ConfigDir = None,
    data_dir: DataDir = None,
) -> None:
    """Check a model or a task against its contracts.

    Prints one line per contract. The exit code is 1 if a contract fails. A contract does not apply,
    and is marked with -, if the model lacks the feature (carrying a state, skipping a context).

    Example: seqbench check my_model.py:MyModel hidden_size=32
    """
    import torch
    from rich.console import Console
    from rich.text import Text

    from seqbench.contracts.model import check_model
    from seqbench.contracts.task import check_task

    # All tensors are small: a second thread would slow the checks down.
    torch.set_num_threads(1)
    kind, node = described(target, values or [], config_dir)
    if kind == "model":
        results = check_model(lambda spec: made(kind, node, spec))
    else:
        program = {"batch_size": BATCH_SIZE, "data_dir": data_dir}
        results = check_task(lambda seed: made(kind, node, seed=seed, **program))
    console = Console(highlight=False, soft_wrap=True)
    held = True
    for result in results:
        held &= result.passed is not False
        tick = MARKS[result.passed]
        remark = f": {result.message}" if result.message else ""
        console.print(Text.assemble(tick, f" {result.name}{remark}"))
    if not held:
        raise typer.Exit(1)


def made(kind: str, node: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
    """Build a model or a task.

    Raises:
        ConfigError: if the constructor raises ValueError or SeqbenchError to reject a kind of task
            or a value. Any other exception is a bug in the constructor, and is raised unchanged.
    """
    from seqbench.config.build import build

    try:
        return build(kind, {kind: node}, *args, **kwargs)
    except ConfigError as error:
        cause = error.__cause__ and (error.__cause__.__cause__ or error.__cause__)
        if cause is None or isinstance(cause, SeqbenchError | ValueError):
            raise
        raise cause from None


def described(
    target: str, values: list[str], config_dir: str | None = None
) -> tuple[str, dict[str, Any]]:
    """Return the kind of a target, `model` or `task`, and its validated config.

    Raises:
        ConfigError: if the target does not exist, or its constructor does not accept the values.
    """
    from seqbench.config.choices import choices_of
    from seqbench.config.compose import Composer
    from seqbench.config.schema import check_node, integers_in
    from seqbench.wording import suggestion

    given = parsed(values)
    composer = Composer(config_dir)
    if Path(target).suffix == ".py":
        raise ConfigError(
            f"expected FILE:CLASS, got '{target}': append the class, as in {target}:MyModel"
        )
    for kind in ("model", "task"):
        if target in choices_of(kind, config_dir):
            node = chosen(kind, target, composer) | given
            break
    else:
        if "." not in target:
            known = [name for kind in ("model", "task") for name in choices_of(kind, config_dir)]
            raise ConfigError(f"no model or task named '{target}'{suggestion(target, known)}")
        kind, path = found_class(target)
        node = {"_target_": path} | given
    node = integers_in(node, kind)
    check_node(kind, node)
    return kind, node


def chosen(kind: str, name: str, composer: "Composer") -> dict[str, Any]:
    """Return the config of a model or task of seqbench, a plug-in or the user's config folder.

    Required values that the config does not set are left out.
    """
    from omegaconf import OmegaConf

    from seqbench.config.choices import read_choice

    if composer.config_dir is None:
        return read_choice(kind, name)
    tree, _ = composer.composed([f"{kind}={name}", "recipe=none"])
    node: dict[str, Any] = OmegaConf.to_container(tree[kind], resolve=True)  # type: ignore[assignment]
    return {key: value for key, value in node.items() if value != "???"}


def parsed(values: list[str]) -> dict[str, Any]:
    """Return a dict from `key=value` arguments, with each value parsed as YAML.

    Raises:
        ConfigError: if an argument has no `=`, or a value is not YAML.
    """
    import yaml

    from seqbench.config.yaml_file import Loader

    result = {}
    for value in values:
        # Accept `model.key=value`, as `seqbench train` does, and `key=value`.
        key, equals, text = value.removeprefix("model.").removeprefix("task.").partition("=")
        if not equals:
            raise ConfigError(f"expected KEY=VALUE, got '{value}'")
        try:
            result[key] = yaml.load(text, Loader)
        except yaml.YAMLError:
            raise ConfigError(f"expected a YAML value after =, got '{value}'") from None
    return result


def found_class(target: str) -> tuple[str, str]:
    """Import a class, and return its kind, `model` or `task`, and its import path.

    Args:
        target: `package.Class` or `file.py:Class`.

    Raises:
        ConfigError: if the class cannot be imported, or is neither a model nor a task.
    """
    from importlib import import_module

    from torch import nn

    from seqbench.config.schema import import_from
    from seqbench.tasks.task import Task
    from seqbench.wording import suggestion

    file, colon, name = target.rpartition(":")
    source = Path(file) if colon else None
    if source is None:
        module_name, _, name = target.rpartition(".")
    elif source.suffix == ".py" and source.is_file():
        module_name = source.stem
    elif source.suffix == ".py" and not source.exists():
        raise ConfigError(f"{file} is not there")
    else:
        raise ConfigError(f"expected the path of a Python file, got '{file}'")
    import_from("" if source is None else str(source.resolve().parent))
    try:
        module = import_module(module_name)
    except Exception as error:
        raise ConfigError(f"cannot import {module_name}: {first_line(error)}") from error
    if source is not None and Path(module.__file__ or "").resolve() != source.resolve():
        raise ConfigError(f"the name of another module is also '{module_name}': rename {file}")
    classes = {key: value for key, value in vars(module).items() if isinstance(value, type)}
    if name not in classes:
        raise ConfigError(f"{module_name} has no class '{name}'{suggestion(name, classes)}")
    if not issubclass(classes[name], (nn.Module, Task)):
        raise ConfigError(
            f"expected a subclass of torch.nn.Module or seqbench's Task, got {target}"
        )
    return "task" if issubclass(classes[name], Task) else "model", f"{module_name}.{name}"
