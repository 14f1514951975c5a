"""Run the plain model in a separate process, isolated from seqbench's settings.

Flushing denormal numbers to zero is a setting of a process, and so are many of torch's. A fresh
process has torch's defaults; seqbench sets only its number of threads.
"""

import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

from seqbench import SPIN, SPIN_BY_DEFAULT, machine
from seqbench.bench.loop import Loop
from seqbench.bench.plain import build_plain
from seqbench.config import Config
from seqbench.config.build import build
from seqbench.config.schema import import_target
from seqbench.errors import RunError, SeqbenchError
from seqbench.experiment.build import build_task
from seqbench.models.sequence_model import SequenceModel
from seqbench.spec import SequenceSpec

# Seconds to wait after the reference's steps. With torch's defaults its idle threads spin for some
# milliseconds, and would take the cores from seqbench's next steps. seqbench's threads spin less.
REST = 0.02

# Builds a model from the config's `model` node and the task's spec.
BuildModel = Callable[[dict[str, Any], SequenceSpec], SequenceModel]


class Reference:
    """A process that runs training steps of the plain model on request; a context manager.

    Args:
        config: the config that seqbench's loop is built from.
        device: the device of seqbench's loop.
        build_model: builds the plain model; it must be picklable.
    """

    def __init__(
        self, config: Config, device: torch.device, build_model: BuildModel = build_plain
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        arguments = (theirs, config, str(device), torch.get_num_threads(), build_model)
        self.process = context.Process(target=serve, args=arguments, daemon=True)
        # The new process reads this variable when it imports torch: give it OpenMP's default.
        asked = os.environ.get("GOMP_SPINCOUNT")
        if asked == SPIN:
            os.environ["GOMP_SPINCOUNT"] = SPIN_BY_DEFAULT
        self.process.start()
        if asked is not None:
            os.environ["GOMP_SPINCOUNT"] = asked
        theirs.close()

    def __enter__(self) -> "Reference":
        return self

    def __exit__(self, *error: object) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.join()

    def ready(self) -> dict[str, Any]:
        """Wait until the process is set up; return its facts, `threads` and `flushes`.

        Raises:
            SeqbenchError: if the set-up fails.
        """
        return self.answer()

    def steps(self, count: int) -> list[float]:
        """Run `count` training steps, wait `REST` seconds, and return the seconds of each step.

        Raises:
            SeqbenchError: if a step fails.
        """
        times: list[float] = self.answer(count)
        time.sleep(REST)
        return times

    def answer(self, count: int | None = None) -> Any:
        """Send `count`, if given, and return the process's next answer.

        Raises:
            SeqbenchError: if the answer is an error, or the process died.
        """
        try:
            if count is not None:
                self.connection.send(count)
            said = self.connection.recv()
        except (EOFError, OSError):
            raise RunError("the reference's process died; possibly out of memory") from None
        if isinstance(said, SeqbenchError):
            raise said
        return said


def serve(
    connection: "Connection[Any, Any]",
    config: Config,
    device: str,
    threads: int,
    build_model: BuildModel,
) -> None:
    """Set up the plain loop, then run steps on request until the connection closes."""
    try:
        import_target(config["task"]["_target_"], "task")  # the user's module, in this process too
        torch.set_num_threads(threads)
        where = torch.device(device)
        if where.type == "cuda":
            torch.cuda.set_device(where.index or 0)
        loop = plain_loop(config, where, build_model)
        tiny = torch.tensor(1e-40) * 0.5
        connection.send({"threads": torch.get_num_threads(), "flushes": tiny.item() == 0})
        while True:
            connection.send(loop.steps(connection.recv()))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        pass
    except SeqbenchError as error:
        connection.send(error)
    except Exception as error:
        line = str(error).split("\n")[0]
        connection.send(RunError(f"the plain reference failed: {type(error).__name__}: {line}"))


def plain_loop(config: Config, device: torch.device, build_model: BuildModel = build_plain) -> Loop:
    """Build the loop of the plain model: not compiled, and without micro-batches."""
    eager = config["trainer"] | {"compile": False, "graph": False, "accumulate": 1}
    trainer = build("trainer", config | {"trainer": eager})
    task = build_task(config, trainer)
    task.to(device)
    machine.seed_everything(config["seed"])
    model = build_model(config["model"], task.spec).to(device)
    optimizer = build("optimizer", config, list(model.parameters()))
    return Loop(trainer.begin(model, optimizer, build("schedule", config)), task, trainer)
