"""`seqbench data describe`: print what a file holds, and what naive predictions score on it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console
    from rich.table import Table

    from seqbench.config import Config
    from seqbench.tasks.classification import Classification

# Columns about the values of a column or channel, see `facts_of`.
FACTS = ("missing", "mean", "deviation", "lowest", "highest")


def describe(
    path: Annotated[str, typer.Argument(metavar="FILE", help="A CSV, Parquet, npz or .ts file.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Settings as for train: task.target=load."),
    ] = None,
) -> None:
    """Describe a file of the user's.

    Of a table of time series: columns, time steps, gaps, windows of each split, naive forecasts. Of
    labelled sequences (npz, .ts, or a table with task=classify_file): lengths, channels, classes.
    Of labelled texts (task=sentiment_file): lengths, characters, classes.

    Example: seqbench data describe load.csv task.target=load task.horizon=24
    """
    from rich.console import Console

    from seqbench.config.compose import compose
    from seqbench.config.overrides import quoted
    from seqbench.datasets.catalog import DATASETS
    from seqbench.errors import ConfigError
    from seqbench.user_files import SEQUENCE_FILES

    if path in DATASETS and not Path(path).exists():
        raise ConfigError(
            f"data describe takes a file, and {path} is a dataset: see seqbench list datasets"
        )
    words = [f"task.path={quoted(path)}", *(settings or ())]
    if Path(path).suffix.lower() in SEQUENCE_FILES:
        words.insert(0, "task=classify_file")
    elif not any(word.startswith("task=") for word in words):
        words.insert(0, "task=forecast_file")
    config = compose([*words, "model=gru"])
    console = Console(highlight=False)
    if config["choices"]["task"] == "classify_file":
        describe_sequences(config, console)
    elif config["choices"]["task"] == "sentiment_file":
        describe_texts(config, console)
    elif config["choices"]["task"] == "forecast_file":
        describe_table(config, console)
    else:
        raise ConfigError(
            "data describe takes settings of task=forecast_file, task=classify_file or "
            "task=sentiment_file, not another task"
        )


def describe_table(config: "Config", console: "Console") -> None:
    """Print columns, time steps, gaps, windows of each split and naive forecasts of a table."""
    import numpy as np

    from seqbench.cli.rich_tables import columns_table
    from seqbench.config.build import build
    from seqbench.datasets.table import read_table
    from seqbench.datasets.time_steps import moment, step_name, zone_name
    from seqbench.experiment.build import build_task
    from seqbench.tasks.forecast import Forecast, named_columns
    from seqbench.wording import count, score

    node = config["task"]
    read = named_columns(node["target"], node["inputs"], node["known"])
    table = read_table(node["path"], node["time"], node["group"], read)
    if {"id", "label"} <= {*table.columns, *table.ignored}:
        console.print("If each id is a sequence with a label, add task=classify_file.\n")
    missing = np.isnan(table.values).sum(0)
    masked = node["missing"] == "mask"
    if missing.any():
        node["missing"] = "mask"
    task = build_task(config, build("trainer", config))
    assert isinstance(task, Forecast)
    columns = []
    for name, values, gaps in zip(table.columns, table.values.T, missing.tolist(), strict=True):
        used = task.features
        roles = {"target": used.targets, "known ahead": used.known, "input": used.columns}
        use = next((role for role, names in roles.items() if name in names), "not read")
        columns.append([name, use, count(gaps), *facts_of(values)])
    columns += [[name, "not read"] for name in table.ignored]
    console.print(columns_table(["column", "use", *FACTS], columns, FACTS))
    rows = {"rows": count(len(table.values)), "series": count(len(table.series))}
    if table.time is not None and table.step is not None:
        rows["time"] = f"{moment(table.time.min())} to {moment(table.time.max())}"
        rows["time"] += "" if table.offset is None else f" ({zone_name(table.offset)})"
        rows["time step"] = step_name(table.step)
        rows["gaps"] = count(table.gaps)
    rows["season"] = f"{table.period} time steps" if table.period else "none found"
    rows |= {f"{split} windows": count(len(at)) for split, at in task.origins.items()}
    rows |= {name: score("mse", value) for name, value in task.naive.items()}
    print_facts(rows, console)
    if missing.any() and not masked:
        console.print("\nValues are missing: train with task.missing=mask, or fill them.")


def describe_sequences(config: "Config", console: "Console") -> None:
    """Print sequences, lengths, classes by split, and channels of labelled sequences."""
    import numpy as np

    from seqbench.cli.rich_tables import columns_table
    from seqbench.config.build import build
    from seqbench.datasets.labelled_file import read_labelled
    from seqbench.experiment.build import build_task
    from seqbench.tasks.classification import named_channels
    from seqbench.tasks.classify_file import ClassifyFile
    from seqbench.wording import count, score

    node = config["task"]
    columns = node["id"], node["time"], node["label"], named_channels(node["channels"])
    data = read_labelled(node["path"], *columns)
    missing = np.isnan(data.values).sum(0)
    channels = [
        [name, count(gaps), *facts_of(values)]
        for name, values, gaps in zip(data.channels, data.values.T, missing.tolist(), strict=True)
    ]
    console.print(columns_table(["channel", *FACTS], channels, FACTS))
    rows = {"sequences": count(len(data.lengths)), "time steps": count(len(data.values))}
    rows["lengths"] = lengths_of(data.lengths)
    if data.labels is None:
        rows["classes"] = "none: predict can read this file, train cannot"
    else:
        masked = node["missing"] == "mask"
        if missing.any():
            node["missing"] = "mask"
        task = build_task(config, build("trainer", config))
        assert isinstance(task, ClassifyFile)
        console.print()
        console.print(classes_by_split(task))
        rows |= {name: score("accuracy", value) for name, value in task.naive.items()}
    print_facts(rows, console)
    if missing.any() and data.labels is not None and not masked:
        console.print("\nValues are missing: train with task.missing=mask, or fill them.")


def describe_texts(config: "Config", console: "Console") -> None:
    """Print classes by split, number, lengths and characters of labelled texts."""
    import numpy as np

    from seqbench.config.build import build
    from seqbench.experiment.build import build_task
    from seqbench.tasks.text_classification import SentimentFile
    from seqbench.wording import count, score

    task = build_task(config, build("trainer", config))
    assert isinstance(task, SentimentFile)
    console.print(classes_by_split(task))
    used = np.concatenate(list(task.rows.values()))
    rows = {"texts": count(len(used)), "lengths": lengths_of(task.sequences.lengths.numpy()[used])}
    for name, note in task.notes.items():
        if name.partition("_")[0] in ("characters", "cut", "unknown"):
            rows[name.replace("_", " ")] = count(int(note))
    rows |= {name: score("accuracy", value) for name, value in task.naive.items()}
    print_facts(rows, console)


def print_facts(facts: dict[str, str], console: "Console") -> None:
    """Print names and texts in two columns, below an empty line."""
    from seqbench.cli.rich_tables import facts_table

    console.print()
    console.print(facts_table(facts.items()))


def classes_by_split(task: "Classification") -> "Table":
    """Return a table of the number of examples of each class in each split."""
    from seqbench.cli.rich_tables import columns_table
    from seqbench.wording import count

    splits = {split: task.targets[task.rows[split]] for split in ("train", "valid", "test")}
    rows = [
        [name, *(count(int((y == i).sum())) for y in splits.values())]
        for i, name in enumerate(task.features.classes)
    ]
    return columns_table(["class", *splits], rows, splits)


def lengths_of(lengths: "NDArray[np.int64]") -> str:
    """Return the shortest, median and longest length as a text."""
    import numpy as np

    low, high = int(lengths.min()), int(lengths.max())
    if low == high:
        return f"{low:,}"
    return f"{low:,} to {high:,}, median {np.median(lengths):,.0f}"


def facts_of(values: "NDArray[np.float64]") -> list[str]:
    """Return mean, deviation, lowest and highest of the known values, as texts."""
    import numpy as np

    from seqbench.wording import number

    known = values[np.isfinite(values)]
    facts = [f(known) if len(known) else None for f in (np.mean, np.std, np.min, np.max)]
    return [number(None if fact is None else float(fact)) for fact in facts]
