"""`seqbench list`: list the available models, tasks, datasets and other choices."""

import re
from typing import Annotated, Literal

import typer

Kind = Literal[
    "models", "tasks", "optimizers", "schedules", "recipes", "budgets", "papers", "datasets"
]


def listing(kind: Annotated[Kind, typer.Argument(help="What to list.")]) -> None:
    """List the available choices of a kind, with descriptions."""
    if kind == "datasets":
        from seqbench.datasets.catalog import DATASETS

        rows = [(name, dataset.description) for name, dataset in DATASETS.items()]
    else:
        from seqbench.config.choices import CONFIG_FOLDER, plugins

        group = kind.removesuffix("s")
        paths = sorted((CONFIG_FOLDER / group).glob("*.yaml"))
        describe = source if kind == "recipes" else header
        rows = [(path.stem, describe(path.read_text(encoding="utf-8"))) for path in paths]
        added = plugins(group).items()
        rows += [(name, f"plug-in: {node['_target_']}") for name, node in sorted(added)]
    width = max((len(name) for name, _ in rows), default=0)
    for name, text in rows:
        print(f"{name:<{width}}  {text}".rstrip())


def header(text: str) -> str:
    """Return the first sentence of a YAML file's opening comment, without its full stop."""
    lines = []
    for line in text.splitlines():
        if line.startswith("# @package"):
            continue
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return re.split(r"(?<!et al)\. ", " ".join(lines))[0].rstrip(".")


def source(text: str) -> str:
    """Return the source of a recipe's settings; the file's header if it names none."""
    import yaml

    return str((yaml.safe_load(text) or {}).get("recipe", {}).get("source", header(text)))
