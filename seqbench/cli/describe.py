"""`seqbench data describe`: print what a table holds, and what naive forecasts score on it."""

from typing import Annotated

import typer


def describe(
    path: Annotated[str, typer.Argument(metavar="FILE", help="A CSV or Parquet file.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Settings as for train: task.target=load."),
    ] = None,
) -> None:
    """Describe a table: columns, time steps, gaps, windows of each split, naive forecasts.

    Example: seqbench data describe load.csv task.target=load task.horizon=24
    """
    import numpy as np
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from seqbench.config.build import build
    from seqbench.config.compose import compose
    from seqbench.config.overrides import quoted
    from seqbench.datasets.table import moment, read_table
    from seqbench.datasets.time_steps import step_name
    from seqbench.errors import ConfigError
    from seqbench.experiment.build import build_task
    from seqbench.tasks.forecast import Forecast
    from seqbench.wording import count, number, plain, score

    words = [
        "task=forecast_file",
        "model=nlinear",
        f"task.path={quoted(path)}",
        *(settings or ()),
    ]
    config = compose(words)
    node = config["task"]
    if config["choices"]["task"] != "forecast_file":
        raise ConfigError("data describe takes settings of task=forecast_file, not another task")
    table = read_table(node["path"], node["time"], node["group"])
    missing = np.isnan(table.values).sum(0)
    masked = node["missing"] == "mask"
    if missing.any():
        node["missing"] = "mask"
    task = build_task(config, build("trainer", config))
    assert isinstance(task, Forecast)
    console = Console(highlight=False)
    grid = Table(box=None, pad_edge=False, header_style="bold")
    grid.add_column("column")
    grid.add_column("use")
    for name in ("missing", "mean", "deviation", "lowest", "highest"):
        grid.add_column(name, justify="right")
    for name, values, gaps in zip(table.columns, table.values.T, missing.tolist(), strict=True):
        read = task.features
        roles = {"target": read.targets, "known ahead": read.known, "input": read.columns}
        use = next((role for role, names in roles.items() if name in names), "not read")
        known = values[np.isfinite(values)]
        facts = [f(known) if len(known) else None for f in (np.mean, np.std, np.min, np.max)]
        numbers = (number(None if fact is None else float(fact)) for fact in facts)
        grid.add_row(Text(plain(name)), use, count(gaps), *numbers)
    for name in table.ignored:
        grid.add_row(Text(plain(name)), "not read")
    console.print(grid)
    rows = {"rows": count(len(table.values)), "series": count(len(table.series))}
    if table.time is not None and table.step is not None:
        rows["time"] = f"{moment(table.time.min())} to {moment(table.time.max())}"
        rows["time step"] = step_name(table.step)
        rows["gaps"] = count(table.gaps)
    rows["season"] = f"{table.period} time steps" if table.period else "none found"
    rows |= {f"{split} windows": count(len(at)) for split, at in task.origins.items()}
    rows |= {name: score("mse", value) for name, value in task.naive.items()}
    grid = Table.grid(padding=(0, 2))
    for name, text in rows.items():
        grid.add_row(Text(name, "dim"), Text(text))
    console.print()
    console.print(grid)
    if missing.any() and not masked:
        console.print("\nValues are missing: train with task.missing=mask, or fill them.")
