"""`seqbench plot`: write figures of many runs to files."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from seqbench.cli.eval import Trust
from seqbench.cli.folders import Folders, OutputDir, Where, collect_runs, places_text, writable
from seqbench.cli.overriding import refuse
from seqbench.wording import counted

if TYPE_CHECKING:
    from seqbench.results.collect import Collected
    from seqbench.runs.forecasts import ForecastWindow
    from seqbench.runs.record import Record


def plot(
    paths: Folders = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="A .png, .svg or .pdf file; one that is there is replaced only if named here.",
        ),
    ] = None,
    kind: Annotated[
        Literal["curves", "scaling", "pareto", "forecast"],
        typer.Option(
            "--kind",
            "-k",
            help="Learning curves; scores against size or a setting; scores against cost; forecasts"
            " of the test beside the truth.",
        ),
    ] = "curves",
    metric: Annotated[
        str | None,
        typer.Option(help="Another than the one that ranks models: loss, recall_accuracy."),
    ] = None,
    x: Annotated[
        str | None,
        typer.Option(
            help="Curves: steps or epochs. Else: length, parameters, seconds, compute, bytes,"
            " latency, or a key as 'model.num_layers'."
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="KEY", help="Scores: a line for each value: parameters, 'model.num_layers'."
        ),
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(
            metavar="N|TIME",
            help="Forecasts: this window of the test, by its number from 0, or by the first time"
            " of its horizon.",
        ),
    ] = None,
    where: Where = None,
    log: Annotated[
        bool | None,
        typer.Option("--log/--linear", help="Axes; chosen by the values if neither is said."),
    ] = None,
    trust: Trust = None,
    output_dir: OutputDir = Path("outputs"),
) -> None:
    """Draw learning curves, scores against cost, or forecasts.

    Example: seqbench plot --where task=adding -o curves.svg

    Example: seqbench plot --kind scaling --x length --metric recall_accuracy -o scaling.pdf

    Example: seqbench plot --kind pareto --x bytes -o pareto.svg

    Example: seqbench plot --kind scaling --x compute --by parameters

    Example: seqbench plot 3f1b --kind forecast --window 2018-03-01 -o forecast.png
    """
    from seqbench.errors import ConfigError
    from seqbench.results.cells import aggregate
    from seqbench.results.compression import with_sizes
    from seqbench.results.metric import ranked_by
    from seqbench.results.plots import figures
    from seqbench.results.where import select

    if kind == "forecast":
        options = {"--metric": metric, "--x": x, "--log": log, "--linear": log is False}
        refuse(options, "is not for --kind forecast")
    else:
        refuse({"--window": window}, f"is for --kind forecast, not {kind}")
    if kind not in ("scaling", "pareto"):
        refuse({"--by": by}, f"is for --kind scaling and pareto, not {kind}")
    if window is None:
        refuse({"--trust": trust}, "is for --window")
    file = writable(output, Path(f"{kind}.svg"))
    if kind == "forecast":
        paths = [folder_of(path, output_dir) for path in paths or []]
    found = collect_runs(paths, output_dir)
    records = select(found.records, where)
    if not records:
        raise ConfigError(f"no runs in {places_text(paths, output_dir)}: {hint(found)}")
    if kind != "curves" and all(record.status != "completed" for record in records):
        raise ConfigError(f"there is nothing to draw: {lost_text(records)}")
    if kind == "forecast":
        from seqbench.results.plots.forecasts import forecasts

        chosen = None if window is None else windows_of(records, found.folders, window, trust)
        figure = forecasts(aggregate(records), found.folders, chosen)
    elif kind == "curves":
        figure = figures.learning_curves(
            aggregate(records), found.folders, metric, x or "steps", log
        )
    else:
        sized = with_sizes(records) if kind == "pareto" else records
        cells = aggregate(ranked_by(sized, metric) if metric else sized)
        if kind == "scaling":
            figure = figures.scaling(cells, x or "length", log, by)
        else:
            figure = figures.pareto(cells, x or "seconds", log, by)
    figures.write(figure, file)
    typer.echo(f"{file}: {drawn_text(records, kind)}")


def hint(found: "Collected") -> str:
    """Return why no run was selected, or what to do about it."""
    if found.records:
        return "none matches"
    if found.unfinished:
        return "none has ended yet, see 'seqbench runs'"
    return "'seqbench train' makes one"


def windows_of(
    records: "Sequence[Record]", folders: Mapping[str, Path], window: str, trust: list[str] | None
) -> "dict[str, list[ForecastWindow]]":
    """Return run_id -> a window of the test, computed from the weights of each run that forecasts.

    Raises:
        ConfigError: if no completed run forecasts, or if there is no such window.
    """
    from seqbench.errors import ConfigError
    from seqbench.experiment.saved_run import SavedRun
    from seqbench.results.where import MISSING, value_of

    done = [
        record.run_id
        for record in records
        if record.status == "completed" and value_of(record, "task.horizon") is not MISSING
    ]
    if not done:
        raise ConfigError("--window is for runs that forecast, and there are none")
    return {key: SavedRun(folders[key], trust or ()).forecast_window(window) for key in done}


def lost_text(records: "Sequence[Record]") -> str:
    """Return the number of runs of each status but `completed`: `1 diverged, 2 failed`."""
    counts = Counter(record.status for record in records if record.status != "completed")
    return ", ".join(f"{count} {status}" for status, count in counts.items())


def drawn_text(records: "Sequence[Record]", kind: str) -> str:
    """Return the number of runs that are drawn, and of those that are not."""
    lost = lost_text(records)
    # A failed run may have a curve, but never a score.
    remark = f"{lost} among them, as far as they came" if kind == "curves" else f"without {lost}"
    drawn = sum(kind == "curves" or record.status == "completed" for record in records)
    runs = counted(drawn, "run")
    return f"{runs} ({remark})" if lost else runs


def folder_of(path: Path, output_dir: Path) -> Path:
    """Return a folder with runs as it is, and the folder of a run that is named by its id."""
    from seqbench.runs.find import find_run

    return path if path.exists() else find_run(str(path), output_dir)
