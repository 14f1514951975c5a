"""The plain way, in a process of its own: nothing of our set-up must reach it.

Whether a CPU flushes denormal numbers to zero is a setting of a process, and so are many of torch's
own. A fresh process has torch's defaults; of ours it gets the number of threads.
"""

import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

import torch
from torch import nn

from seqbench import SPIN, SPIN_BY_DEFAULT, machine
from seqbench.bench import plain
from seqbench.bench.loops import BareLoop
from seqbench.configuration import Config, build, check
from seqbench.errors import RunError, SeqbenchError
from seqbench.experiment import build_task
from seqbench.spec import SequenceSpec

# Seconds. By torch's default its threads wait for more work by spinning: for some milliseconds they
# take the cores from whoever is next. Ours do not.
REST = 0.02

# From the model's node of a configuration and the form of the problem to a model.
Twin = Callable[[dict[str, Any], SequenceSpec], nn.Module]


class Reference:
    """A process that trains a plain model whenever it is told to; a context.

    Args:
        config: as ours.
        device: what ours runs on.
        twin: builds the model; it must be importable there.
    """

    def __init__(self, config: Config, device: torch.device, twin: Twin = plain.twin) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        arguments = (theirs, config, str(device), torch.get_num_threads(), twin)
        self.process = context.Process(target=serve, args=arguments, daemon=True)
        # What a process reads when it imports torch is to be found as torch would have it.
        asked = os.environ.get("GOMP_SPINCOUNT")
        if asked == SPIN:
            os.environ["GOMP_SPINCOUNT"] = SPIN_BY_DEFAULT
        self.process.start()
        if asked is not None:
            os.environ["GOMP_SPINCOUNT"] = asked
        theirs.close()

    def __enter__(self) -> "Reference":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.join()

    def ready(self) -> dict[str, Any]:
        """Wait until it is set up; what is to be known of it.

        Raises:
            SeqbenchError: it could not be set up.
        """
        return self.answer()

    def steps(self, count: int) -> list[float]:
        """Take so many training steps, and give the seconds of each; then come to rest.

        Raises:
            RunError: it failed.
        """
        times: list[float] = self.answer(count)
        time.sleep(REST)
        return times

    def answer(self, count: int | None = None) -> Any:
        """What it says next, after it was sent a number of steps if there is one."""
        try:
            if count is not None:
                self.connection.send(count)
            said = self.connection.recv()
        except (EOFError, OSError):
            raise RunError("the reference's process died; is there memory for two?") from None
        if isinstance(said, SeqbenchError):
            raise said
        return said


def serve(
    connection: "Connection[Any, Any]", config: Config, device: str, threads: int, twin: Twin
) -> None:
    """Set up, then take steps as the other end asks, until it is gone."""
    try:
        check(config)  # finds the user's modules, in this process too
        torch.set_num_threads(threads)
        where = torch.device(device)
        if where.type == "cuda":
            torch.cuda.set_device(where.index or 0)
        loop = bare_loop(config, where, twin)
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


def bare_loop(config: Config, device: torch.device, twin: Twin) -> BareLoop:
    """A bare loop around a model of the same sizes on the same task; a batch is never cut."""
    trainer = build("trainer", config)
    trainer.graph = False
    task = build_task(config, trainer)
    task.to(device)
    machine.seed_everything(config["seed"])
    model = twin(config["model"], task.spec).to(device)
    optimizer = build("optimizer", config, list(model.parameters()))
    return BareLoop(trainer.begin(model, optimizer, build("schedule", config)), task, trainer)
