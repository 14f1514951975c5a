"""Loops that can be timed step by step: that of the trainer, and a bare one to compare it with.

`Trainer.fit` asks after each step whether a signal wants it to stop. Here that question notes the
time, and after the last step leaves the loop. Called again, `fit` goes on where it was, so that
steps can be taken in blocks.
"""

import tempfile
import time
from pathlib import Path
from typing import Protocol

import torch
from torch.optim import Optimizer

from seqbench.config import Config
from seqbench.experiment.build import Experiment
from seqbench.runs.events import EventLog
from seqbench.runs.observer import Observer
from seqbench.tasks.task import Task
from seqbench.training.graph import Graphs
from seqbench.training.schedules import set_rates
from seqbench.training.state import TrainingState
from seqbench.training.trainer import Step, Trainer
from seqbench.training.training import Training

ENDLESS = 10**9  # steps


class Loop(Protocol):
    """A training loop that is taken in blocks of steps."""

    def steps(self, count: int) -> list[float]:
        """Take training steps, and return the seconds of each."""


class Enough(Exception):
    """All steps of a block are done."""


class Clock:
    """The times at which steps end; on a GPU by its own clock, so that the CPU does not wait.

    Args:
        device: what the steps run on.
        count: steps to take; then `tick` raises `Enough`.
    """

    def __init__(self, device: torch.device, count: int) -> None:
        self.device = device
        self.count = count
        self.times: list[float] = []
        self.events: list[torch.cuda.Event] = []
        self.note()

    def note(self) -> None:
        """Note the time."""
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.events.append(event)
        else:
            self.times.append(time.perf_counter())

    def tick(self) -> int:
        """Note that a step has ended, and return 0, by which the trainer goes on.

        Raises:
            Enough: after the last step.
        """
        self.note()
        if max(len(self.times), len(self.events)) > self.count:
            raise Enough
        return 0

    def seconds(self) -> list[float]:
        """Return the duration of each step."""
        if self.events:
            torch.cuda.synchronize(self.device)
            pairs = zip(self.events, self.events[1:], strict=False)
            return [begin.elapsed_time(end) / 1000 for begin, end in pairs]
        return [end - begin for begin, end in zip(self.times, self.times[1:], strict=False)]


class TrainerLoop:
    """The loop of `Trainer.fit`, without evaluations and checkpoints.

    Args:
        config: as for a run, whose folder stays untouched.
    """

    def __init__(self, config: Config) -> None:
        keys = ("steps", "eval_every", "checkpoint_every")
        endless = {**dict.fromkeys(keys, ENDLESS), "epochs": None, "stop_when_solved": False}
        config = config | {"trainer": config["trainer"] | endless}
        self.experiment = Experiment(config)
        self.trainer = self.experiment.trainer
        self.graphs = Graphs(self.experiment.state.optimizer)

    def wrap(self, optimizer: Optimizer, step: Step) -> Step:
        """Return a step that uses the graphs of all blocks of steps, if that is configured."""
        return self.graphs.wrap(step) if self.experiment.captures_steps else step

    def steps(self, count: int) -> list[float]:
        """Take training steps, and return the seconds of each."""
        parts = self.experiment
        with tempfile.TemporaryDirectory(prefix="seqbench-bench-") as folder:
            events = EventLog(Path(folder) / "events.jsonl", 0)
            clock = Clock(parts.device, count)
            try:
                training = Training(parts.state, parts.task, events, Path(folder), Observer())
                self.trainer.fit(training, clock.tick, self.wrap)
            except Enough:
                pass
            finally:
                events.close()
        return clock.seconds()


class BareLoop:
    """A loop of nothing but training steps.

    Args:
        state: model, optimizer and schedule, as `Trainer.begin` returns it.
        task: on the model's device.
        trainer: takes the steps.
    """

    def __init__(self, state: TrainingState, task: Task, trainer: Trainer) -> None:
        self.state = state
        self.task = task
        self.trainer = trainer
        self.device = next(state.model.parameters()).device
        state.model.train()

    def steps(self, count: int) -> list[float]:
        """Take training steps, and return the seconds of each."""
        clock = Clock(self.device, count)
        try:
            while True:
                self.step()
                clock.tick()
        except Enough:
            return clock.seconds()

    def step(self) -> None:
        """Take one step."""
        state, task, number = self.state, self.task, self.state.progress.step
        total = self.trainer.total_steps(task)
        set_rates(state.optimizer, state.schedule.factor(number, total))
        batch = task.train_batch(number)
        carried = None if batch.fresh else state.carried
        result = self.trainer.train_step(state.model, state, task, batch, carried)
        state.carried = result.carried
        state.progress.step += 1
