"""Time the plain model in a separate process with PyTorch's default settings.

The plain model is the textbook implementation that seqbench is compared with. Flushing denormal
numbers to zero and many settings of PyTorch apply to a whole process. The new process keeps the
defaults, except for the number of threads, which is that of the calling process.
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
from seqbench.config import Config
from seqbench.config.build import build
from seqbench.config.schema import import_target
from seqbench.errors import RunError, SeqbenchError, typed_line
from seqbench.experiment.build import build_task
from seqbench.models.plain import build_plain
from seqbench.models.sequence_model import SequenceModel
from seqbench.spec import SequenceSpec

# Seconds to wait after the steps of the reference process. By default, idle OpenMP threads spin for
# a few milliseconds and would slow down the next steps of seqbench. seqbench's threads spin less.
PAUSE = 0.02

# Builds a model from the config's `model` node and the task's spec.
BuildModel = Callable[[dict[str, Any], SequenceSpec], SequenceModel]


class Reference:
    """Run training steps of the plain model in a separate process; a context manager.

    Args:
        config: config of the run to measure; the plain model is built from it, too.
        device: device to train on, the same as for seqbench.
        build_model: function that builds the plain model; it must be picklable.
    """

    def __init__(
        self, config: Config, device: torch.device, build_model: BuildModel = build_plain
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, child_end = context.Pipe()
        arguments = (child_end, config, str(device), torch.get_num_threads(), build_model)
        self.process = context.Process(target=serve, args=arguments, daemon=True)
        # OpenMP in the new process reads this variable. Set OpenMP's default, then restore it.
        previous = os.environ.get("GOMP_SPINCOUNT")
        if previous == SPIN:
            os.environ["GOMP_SPINCOUNT"] = SPIN_BY_DEFAULT
        self.process.start()
        if previous is not None:
            os.environ["GOMP_SPINCOUNT"] = previous
        child_end.close()

    def __enter__(self) -> "Reference":
        return self

    def __exit__(self, *error: object) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.join()

    def ready(self) -> dict[str, Any]:
        """Wait until the process is set up, and return its settings.

        Returns:
            `threads`: number of threads. `flushes`: True if denormal numbers are flushed to zero.

        Raises:
            SeqbenchError: if the set-up fails.
        """
        return self.receive()

    def run_steps(self, count: int) -> list[float]:
        """Run `count` training steps, and return the seconds of each step.

        Wait `PAUSE` seconds after the last step.

        Raises:
            SeqbenchError: if a step fails.
        """
        times: list[float] = self.receive(count)
        time.sleep(PAUSE)
        return times

    def receive(self, count: int | None = None) -> Any:
        """Send `count` to the process, if given, and return the next message of the process.

        Raises:
            SeqbenchError: if the message is an error, or the process died.
        """
        try:
            if count is not None:
                self.connection.send(count)
            message = self.connection.recv()
        except (EOFError, OSError):
            raise RunError(
                "expected an answer from the reference process, got none: it died, possibly out of "
                "memory; try a smaller trainer.batch_size"
            ) from None
        if isinstance(message, SeqbenchError):
            raise message
        return message


def serve(
    connection: "Connection[Any, Any]",
    config: Config,
    device: str,
    threads: int,
    build_model: BuildModel,
) -> None:
    """Build the plain loop, then run the requested steps until the connection is closed."""
    try:
        import_target(config["task"]["_target_"], "task")  # imports a custom task
        torch.set_num_threads(threads)
        torch_device = torch.device(device)
        if torch_device.type == "cuda":
            torch.cuda.set_device(torch_device.index or 0)
        loop = plain_loop(config, torch_device, build_model)
        denormal = torch.tensor(1e-40) * 0.5
        connection.send({"threads": torch.get_num_threads(), "flushes": denormal.item() == 0})
        while True:
            connection.send(loop.run_steps(connection.recv()))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        pass
    except SeqbenchError as error:
        connection.send(error)
    except Exception as error:
        connection.send(RunError(f"the reference process failed: {typed_line(error)}"))


def plain_loop(config: Config, device: torch.device, build_model: BuildModel = build_plain) -> Loop:
    """Return the loop of the plain model, without torch.compile, CUDA graphs or micro-batches."""
    eager = config["trainer"] | {"compile": False, "graph": False, "accumulate": 1}
    trainer = build("trainer", config | {"trainer": eager})
    task = build_task(config, trainer)
    task.to(device)
    machine.seed_everything(config["seed"])
    model = build_model(config["model"], task.spec).to(device)
    optimizer = build("optimizer", config, list(model.parameters()))
    return Loop(trainer.begin(model, optimizer, build("schedule", config)), task, trainer)
