"""Loops that can be timed step by step: the trainer's own, and a bare one to hold it against.

The trainer's is `Trainer.fit` itself, which asks after each step whether somebody wants it to stop.
Here that question notes the time, and after the last step leaves the loop. Given again, `fit` goes
on where it was, so that steps can be taken in blocks.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from seqbench.configuration import Config
from seqbench.experiment import Experiment
from seqbench.runs.observer import Observer
from seqbench.runs.run import EventLog, Run
from seqbench.tasks.task import Task
from seqbench.training.prediction import predict
from seqbench.training.state import TrainingState
from seqbench.training.trainer import Trainer, Training


class Loop(Protocol):
    """Something that trains."""

    def steps(self, count: int) -> list[float]:
        """Take so many training steps, and give the seconds of each."""


class Enough(Exception):
    """As many steps are done as were asked for."""


class Clock:
    """Notes when steps end: on a GPU by its own clock, so that nobody waits for it in between.

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
        """Note that a step has ended; 0, which to the trainer means: go on."""
        self.note()
        if max(len(self.times), len(self.events)) > self.count:
            raise Enough
        return 0

    def seconds(self) -> list[float]:
        """How long each step took."""
        if self.events:
            torch.cuda.synchronize(self.device)
            pairs = zip(self.events, self.events[1:], strict=False)
            return [begin.elapsed_time(end) / 1000 for begin, end in pairs]
        return [end - begin for begin, end in zip(self.times, self.times[1:], strict=False)]


class TrainerLoop:
    """Our training step, with all that `seqbench train` does in one.

    Args:
        config: as for a run, whose folder stays untouched.
    """

    def __init__(self, config: Config) -> None:
        self.experiment = Experiment(config, Run.of(config))
        self.trainer = self.experiment.trainer
        self.total = self.trainer.total_steps(self.experiment.task)
        # Evaluations and checkpoints are no part of a step.
        self.trainer.eval_every = self.trainer.checkpoint_every = sys.maxsize
        self.trainer.epochs = None

    def steps(self, count: int) -> list[float]:
        """Take so many training steps, and give the seconds of each."""
        state = self.experiment.state
        self.trainer.steps = max(self.total, state.progress.step + count + 1)
        with tempfile.TemporaryDirectory(prefix="seqbench-bench-") as folder:
            events = EventLog(Path(folder) / "events.jsonl", 0)
            clock = Clock(self.experiment.device, count)
            try:
                training = Training(state, self.experiment.task, events, Path(folder), Observer())
                self.trainer.fit(training, clock.tick)
            except Enough:
                pass
            finally:
                events.close()
        return clock.seconds()


class BareLoop:
    """The training step as a textbook has it, with the same clipping, schedule and precision.

    Args:
        state: model, optimiser and schedule, as `Trainer.begin` gives it.
        task: on the model's device.
        trainer: says precision, clipping and steps; its loop is not used.
    """

    def __init__(self, state: TrainingState, task: Task, trainer: Trainer) -> None:
        self.state = state
        self.task = task
        self.trainer = trainer
        self.device = next(state.model.parameters()).device
        state.model.train()

    def steps(self, count: int) -> list[float]:
        """Take so many training steps, and give the seconds of each."""
        clock = Clock(self.device, count)
        try:
            while True:
                self.step()
                clock.tick()
        except Enough:
            return clock.seconds()

    def step(self) -> None:
        """Take one step."""
        state, task, clip = self.state, self.task, self.trainer.clip
        model, optimizer, scaler = state.model, state.optimizer, state.scaler
        factor = state.schedule.factor(state.progress.step, self.trainer.total_steps(task))
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        batch = task.train_batch(state.progress.step)
        carried = None if batch.fresh else state.carried
        optimizer.zero_grad()
        with self.trainer.autocast(self.device):
            outputs, batch, state.carried = predict(model, batch, carried, task.spec)
            loss = task.loss(outputs, batch)
        scaler.scale(loss).backward()
        if clip is not None:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        scaler.step(optimizer)
        scaler.update()
        state.progress.step += 1
