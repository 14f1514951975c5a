"""The entry point `seqbench`: register all commands; turn errors into one line and an exit code."""

import io
import os
import sys
from typing import Annotated

import typer

from seqbench import __version__
from seqbench.cli import (
    bench,
    check,
    clean,
    compare,
    completion,
    compress,
    config,
    data,
    doctor,
    eval,
    export,
    generate,
    listing,
    plot,
    predict,
    report,
    reproduce,
    runs,
    show,
    sql,
    sweep,
    table,
    train,
)
from seqbench.cli.overriding import OverrideCommand
from seqbench.errors import SeqbenchError, is_out_of_memory
from seqbench.wording import plain

app = typer.Typer(
    name="seqbench",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help starts faster, and prints brackets literally
    context_settings={"help_option_names": ["-h", "--help"]},
)


def show_version(value: bool) -> None:
    """Print the version and exit, if `--version` is given."""
    if value:
        typer.echo(f"seqbench {__version__}")
        raise typer.Exit


@app.callback()
def seqbench(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=show_version, help="Show the version, and exit."
        ),
    ] = False,
) -> None:
    """Train sequence models on benchmark tasks, and compare them across seeds."""


app.command("train", cls=OverrideCommand)(train.train)
app.command("sweep", cls=OverrideCommand)(sweep.sweep)
app.command("eval", cls=OverrideCommand)(eval.evaluate)
app.command("predict")(predict.predict)
app.command("export")(export.export)
app.command("compress", cls=OverrideCommand)(compress.compress)
app.command("generate", cls=OverrideCommand)(generate.generate)
app.command("table")(table.table)
app.command("reproduce")(reproduce.reproduce)
app.command("report")(report.report)
app.command("plot")(plot.plot)
app.command("runs")(runs.runs)
app.command("show")(show.show)
app.command("compare")(compare.compare)
app.command("clean")(clean.clean)
app.command("bench", cls=OverrideCommand)(bench.bench)
app.command("sql")(sql.sql)
app.add_typer(config.app, name="config")
app.command("list")(listing.listing)
app.command("check")(check.check)
app.add_typer(data.app, name="data")
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Run the command line, and exit with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an arrow must not fail on an ASCII terminal
    # Keep child processes from importing modules of the current folder first (Python 3.11+).
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    try:
        if os.environ.get("_SEQBENCH_COMPLETE") == "complete_bash":
            completion.in_bash(app)
        app()
    except SeqbenchError as error:
        leave(str(error), error.exit_code, error)
    except KeyboardInterrupt as error:
        leave("interrupted", 130, error)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        leave("out of memory; SEQBENCH_TRACEBACK=1 shows where", 1, error)
    except OSError as error:
        # A full disk or a read-only folder is reported in one line, without a traceback.
        leave(
            f"{error.strerror or error}: {error.filename}" if error.filename else str(error),
            1,
            error,
        )


def leave(message: str, code: int, error: BaseException) -> None:
    """Print an error in one line and exit; with SEQBENCH_TRACEBACK set, raise it instead."""
    if os.environ.get("SEQBENCH_TRACEBACK"):
        raise error
    # The message may quote an untrusted file: strip control characters.
    print(f"error: {plain(message.replace(chr(10), ' '))}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
