"""`seqbench bench`: time a model's training step on a task."""

import json
from dataclasses import asdict
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from seqbench.cli import completion
from seqbench.cli.sweep import ConfigDir
from seqbench.wording import counted, number, plain

if TYPE_CHECKING:
    from rich.console import Console

    from seqbench.bench.growth import Growth
    from seqbench.bench.measure import Measurement

EXAMPLES = """
\b
seqbench bench model=tcn task=adding --reference  beside plain PyTorch
seqbench bench model=lstm task=copy trainer.batch_size=64 threads=1
seqbench bench model=llama task=char_markov --sweep length=96,192,384
seqbench bench model=gru task=adding --sweep width=64,128,256 --format json

What is timed is the training step of `seqbench train` with the same overrides. Nothing is written.
"""


class Format(str, Enum):
    """The output formats of a measurement."""

    rich = "rich"
    json = "json"


def bench(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Choices and values, as for `seqbench train`.",
            autocompletion=completion.overrides,
        ),
    ] = None,
    config_dir: ConfigDir = None,
    reference: Annotated[
        bool,
        typer.Option(
            "--reference", help="Take turns with a plain implementation of the same architecture."
        ),
    ] = False,
    sweep: Annotated[
        str | None,
        typer.Option(
            metavar="KEY=N,N",
            help="See how cost grows with length, batch, width, or any key that takes numbers.",
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Timed steps in a round; else about 1.5 s of them.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, in which both sides take turns.")] = 5,
    format: Annotated[
        Format, typer.Option("--format", "-f", help="json: one object on stdout.")
    ] = Format.rich,
) -> None:
    """Time a training step: throughput, memory, share of peak FLOP/s."""
    from rich.console import Console

    from seqbench.bench import growth
    from seqbench.config.compose import compose

    words = overrides or []
    configs, key = [compose(words, config_dir)], ""
    values: list[int] = []
    if sweep is not None:
        key, values = growth.parse(sweep)
        # Compose all configs before the first measurement, so that errors show at once.
        more = [growth.overrides(key, value, configs[0]) for value in values]
        configs = [compose([*words, *extra], config_dir) for extra in more]

    from seqbench.bench.flops import peak_rates
    from seqbench.bench.measure import measure
    from seqbench.machine import prepare

    with Console(stderr=True).status("measuring the machine") as status:
        precision = configs[0]["trainer"]["precision"]
        limits = peak_rates(prepare(configs[0]), precision)
        points = []
        for i, config in enumerate(configs):
            status.update(f"measuring {plain(key)}={values[i]}" if key else "measuring")
            points.append(
                measure(config, reference=reference, steps=steps, rounds=rounds, limits=limits)
            )
    console = Console(highlight=False)
    if sweep is None:
        if format is Format.json:
            typer.echo(json.dumps(asdict(points[0])))
        else:
            show(points[0], console)
    else:
        grown = growth.Growth.of(key, values, points)
        if format is Format.json:
            typer.echo(json.dumps(asdict(grown)))
        else:
            show_growth(grown, console)


def show(found: "Measurement", console: "Console") -> None:
    """Print a measurement as a panel."""
    from seqbench.cli.rich_tables import facts_panel

    title = (
        f"{found.model} on {found.task}, {found.parameters:,} parameters, {found.length} time steps"
    )
    console.print(facts_panel(title, lines(found).items()))


def lines(found: "Measurement") -> dict[str, str]:
    """Return the lines of the panel for a measurement, by name."""
    said = {
        "step": f"{spread(found.step_ms, found.step_ms_p10, found.step_ms_p90)} ms",
        "speed": f"{number(found.steps_per_second)} steps/s, "
        f"{found.samples_per_second:,.0f} samples/s, {found.tokens_per_second:,.0f} tokens/s",
    }
    if found.reference_step_ms is not None:
        milliseconds = (
            found.reference_step_ms,
            found.reference_step_ms_p10,
            found.reference_step_ms_p90,
        )
        ratio = spread(found.ratio, found.ratio_p10, found.ratio_p90)
        said["plain"] = f"{spread(*milliseconds)} ms"
        said["ratio"] = f"{ratio} times as fast as the plain implementation"
    parts = ", ".join(f"{name} {100 * share:.0f} %" for name, share in found.split.items())
    rate, peak = found.flops_per_second, found.peak_flops_per_second
    arithmetic = f"not counted; the machine does {number(peak / 1e9)} GFLOP/s"
    if rate is not None and found.share_of_peak is not None:
        arithmetic = (
            f"{number(rate / 1e9)} of {number(peak / 1e9)} GFLOP/s, "
            f"{number(100 * found.share_of_peak, digits=2)} % ({found.flops_counted})"
        )
    return said | {
        "memory": f"{found.peak_memory_bytes / 2**20:,.0f} MiB at most, without the data",
        "time": parts,
        "arithmetic": arithmetic,
        "copying": f"{found.copy_bytes_per_second / 1e9:.1f} GB/s, measured on this machine",
        "on": f"{found.device}, {counted(found.threads, 'thread')}, {found.precision}, "
        f"{'CUDA graph, ' if found.cuda_graph else ''}batches of {found.batch_size}",
        "timed": f"{found.rounds} rounds of {found.steps} steps",
        "in brackets": "10th to 90th percentile",
    }


def spread(median: float | None, p10: float | None, p90: float | None) -> str:
    """Format a median with its 10th and 90th percentile."""
    return f"{number(median)} ({number(p10)} to {number(p90)})"


def show_growth(grown: "Growth", console: "Console") -> None:
    """Print the measurements of a sweep as a table, and the fitted exponents below it."""
    from rich.text import Text

    from seqbench.cli.rich_tables import columns_table

    compared = grown.reference_exponent is not None
    header = [grown.key, "step ms", "tokens/s", "memory MiB"]
    header += ["plain ms", "ratio"] if compared else []
    rows = []
    for value, point in zip(grown.values, grown.points, strict=True):
        row = [
            str(value),
            spread(point.step_ms, point.step_ms_p10, point.step_ms_p90),
            f"{point.tokens_per_second:,.0f}",
            f"{point.peak_memory_bytes / 2**20:,.0f}",
        ]
        if compared:
            row += [
                number(point.reference_step_ms),
                spread(point.ratio, point.ratio_p10, point.ratio_p90),
            ]
        rows.append(row)
    console.print(columns_table(header, rows, header))
    key = plain(grown.key)
    # The error is zero if each point has one timed step only.
    sure = f" (± {grown.exponent_error:.2f} by the spread of steps)" if grown.exponent_error else ""
    console.print(Text(f"time ~ {key}^{grown.exponent:.2f}{sure}"))
    if grown.memory_exponent is not None:
        console.print(Text(f"memory ~ {key}^{grown.memory_exponent:.2f}"))
    if grown.reference_exponent is not None:
        console.print(Text(f"plain time ~ {key}^{grown.reference_exponent:.2f}"))


bench.__doc__ = f"{bench.__doc__}\n{EXAMPLES}"
