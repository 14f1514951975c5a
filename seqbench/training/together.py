"""Train several seeds of one config as one batched model.

Small models leave most of a GPU idle: launching kernels takes most of a step. With the weights of
all seeds stacked, `(seeds, ...)`, one kernel computes all seeds: GEMMs become batched GEMMs, and
convolutions grouped convolutions. The compiled CPU kernels are the exception: they run once per
seed. Each seed has its own initial weights and order of the training data, its gradient is clipped
by its own norm, and only elementwise optimizers are accepted, so seeds do not influence each other.
A seed's weights and slots are views into the stacks, so it is evaluated and saved like a single
run, and can be resumed as one. State that a model keeps in plain attributes instead of buffers is
lost.

Dropout masks differ between seeds but come from one generator. Without dropout a seed's result is
that of a single run, up to rounding.
"""

import time
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

from seqbench.errors import (
    ConfigError,
    Diverged,
    Interrupted,
    RunError,
    is_out_of_memory,
    typed_line,
)
from seqbench.tasks.task import Batch, Task
from seqbench.training.carried import Carried
from seqbench.training.prediction import check_outputs
from seqbench.training.schedules import Plateau, set_rates
from seqbench.training.state import TrainingState
from seqbench.training.step import Step, StepResult, train_step
from seqbench.training.trainer import Trainer
from seqbench.training.training import Training

# torch has no batching rule for attention on a CPU: it loops over the seeds, and warns.
warnings.filterwarnings("ignore", "There is a performance drop")

ELEMENTWISE = (Adagrad, Adam, AdamW, RMSprop, SGD)


class Stack(nn.Module):
    """The models of several seeds as one module with stacked weights.

    Args:
        states: one for each seed, all of one config. Their models' weights and buffers become
            views into the stacked ones.
    """

    def __init__(self, states: Sequence[TrainingState]) -> None:
        super().__init__()
        models = [state.model for state in states]
        weights, self.stacked_buffers = stack_module_state(models)
        self.names = list(weights)
        self.weights = nn.ParameterList(
            nn.Parameter(stacked.detach(), models[0].get_parameter(name).requires_grad)
            for name, stacked in weights.items()
        )
        for name, stacked in zip(self.names, self.weights, strict=True):
            for model, weight in zip(models, stacked.detach(), strict=True):
                model.get_parameter(name).data = weight
        for name, stacked in self.stacked_buffers.items():
            for model, buffer in zip(models, stacked, strict=True):
                model.get_buffer(name).data = buffer
        # The module for `functional_call`; its own weights are on the meta device and take no
        # memory. In a list, so that they are not registered as parameters.
        self.form = [deepcopy(models[0]).to("meta").train()]

    def forward(self, inputs: Tensor) -> Tensor:
        """Return outputs `(seeds, batch, ...)` of inputs `(seeds, batch, time, ...)`."""

        def one(weights: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
            outputs, _ = functional_call(self.form[0], (weights, buffers), (x,))
            return outputs

        weights = dict(zip(self.names, self.weights, strict=True))
        return vmap(one, randomness="different")(weights, self.stacked_buffers, inputs)


def check(trainer: Trainer, training: TrainingState, task: Task) -> None:
    """Raise `ConfigError` if seeds of a config cannot be trained together.

    Args:
        trainer: the trainer of all seeds.
        training: the state of one seed; it is not changed.
        task: gives the batches.
    """
    instead = "a sweep over seed=0,1,2 trains them side by side"
    for key, value in {
        "trainer.accumulate": trainer.accumulate > 1,
        "trainer.compile": trainer.compile,
        "trainer.stop_when_solved": trainer.stop_when_solved,
        "trainer.patience": trainer.patience is not None,
        "trainer.decay=matrices": trainer.decay != "all",
        "trainer.precision=fp16": trainer.precision == "fp16",
        "schedule=plateau": isinstance(training.schedule, Plateau),
        "sequences of different length": task.spec.variable_length,
        "a model that carries state": training.model.carry_state,
        f"optimizer {type(training.optimizer).__name__}": type(training.optimizer)
        not in ELEMENTWISE,
    }.items():
        if value:
            raise ConfigError(f"seeds= does not go together with {key}: {instead}")
    alone, inputs = deepcopy(training), task.train_batch(0).inputs
    calls = {
        "the model fails": lambda: alone.model(inputs),
        f"seeds= needs a model that torch.func.vmap can batch, or else {instead}": lambda: Stack(
            [alone]
        )(inputs[None]),
    }
    for what, call in calls.items():
        try:
            with torch.no_grad():
                call()
        except Exception as error:
            if is_out_of_memory(error):
                raise
            reason = typed_line(error).split(". ")[0]
            raise ConfigError(f"{what}: {reason}") from error


def fit(
    trainer: Trainer,
    trainings: Sequence[Training],
    optimizer_of: Callable[[list[nn.Parameter]], Optimizer],
    interrupted: Callable[[], int],
    wrap: Callable[[Optimizer, Step], Step] = lambda optimizer, step: step,
) -> list[RunError | None]:
    """Train all seeds to the last step, as `Trainer.fit` trains one.

    Args:
        trainer: the trainer of all seeds.
        trainings: one for each seed, all at the same step; their states are changed in place.
        optimizer_of: builds the optimizer of the stacked weights.
        interrupted: returns the number of the signal that asks the runs to stop, or 0.
        wrap: replaces the training step, given its optimizer, by one with the same results.

    Returns:
        For each seed `None` if it reached the last step, `Diverged`, which does not stop the other
        seeds, or `Interrupted`, raised after a checkpoint was written if its weights are finite.
    """
    states = [training.state for training in trainings]
    first, total = trainings[0], trainer.total_steps(trainings[0].task)
    model = Stack(states)
    parameters = [weight for weight in model.weights if weight.requires_grad]
    optimizer = optimizer_of(parameters)
    stack_slots(optimizer, states)
    optimizers = [optimizer, *(state.optimizer for state in states)]
    for mine, its in zip(optimizer.param_groups, states[0].optimizer.param_groups, strict=True):
        mine["initial_lr"] = its["initial_lr"]
    ends: list[RunError | None] = [None] * len(trainings)
    before, started = [state.progress.seconds for state in states], time.perf_counter()

    def seconds(i: int) -> float:
        """Return a seed's share of the training time: an equal part of it."""
        return before[i] + (time.perf_counter() - started) / len(trainings)

    def backward(batches: Sequence[Batch]) -> Tensor:
        with trainer.autocast(parameters[0].device):
            outputs = model(torch.stack([batch.inputs for batch in batches]))
            check_outputs(outputs[0], batches[0].inputs, first.task.spec)
            losses = [
                training.task.loss(output, batch)
                for training, output, batch in zip(trainings, outputs, batches, strict=True)
            ]
        torch.stack(losses).sum().backward()
        # Detached: a CUDA graph cannot keep the autograd graph.
        return torch.stack([loss.detach() for loss in losses])

    def step_on(batches: Sequence[Batch], carried: Carried) -> StepResult:
        clips = None if trainer.clip is None else partial(clip, parameters, trainer.clip)
        scaler = states[0].scaler  # disabled: fp16 is refused
        losses, norms = train_step(optimizer, scaler, partial(backward, batches), clips)
        return StepResult(losses, norms, batches[0].inputs.shape[:2].numel(), carried)

    step = wrap(optimizer, step_on)
    for number in range(first.state.progress.step, total):
        factor = first.state.schedule.factor(number, total)
        for each in optimizers:
            set_rates(each, factor)
        batches = [training.task.train_batch(number) for training in trainings]
        result = step(batches, None)
        if number == 0:
            view_slots(optimizer, states)
        signal = interrupted()
        for i, training in enumerate(trainings):
            if ends[i] is not None:
                continue
            state = training.state
            state.progress.step += 1
            state.progress.tokens += result.tokens
            norm = None if result.grad_norm is None else result.grad_norm[i]
            part = StepResult(result.loss[i], norm, result.tokens, None)
            try:
                trainer.after_step(training, state.model, part, partial(seconds, i), signal)
            except (Diverged, Interrupted) as end:
                ends[i] = end
        if all(ends):
            break
    return ends


def clip(parameters: Sequence[nn.Parameter], most: float) -> Tensor:
    """Clip each seed's gradient to a norm of `most`; return the norms before, `(seeds,)`."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    each = torch.stack([torch.linalg.vector_norm(g.reshape(len(g), -1), dim=1) for g in gradients])
    norms = torch.linalg.vector_norm(each, dim=0)
    scale = (most / (norms + 1e-6)).clamp(max=1.0)
    for g in gradients:
        g *= scale.view(-1, *[1] * (g.dim() - 1))
    return norms


def is_stacked(name: str, slot: object) -> bool:
    """Return True if an optimizer's slot has values for each weight, unlike a step counter."""
    return isinstance(slot, Tensor) and name != "step"


def stack_slots(optimizer: Optimizer, states: Sequence[TrainingState]) -> None:
    """Stack the seeds' slots, if they have any, and make them views into the stacked ones."""
    own = [state.optimizer.param_groups[0]["params"] for state in states]
    for i, stacked in enumerate(optimizer.param_groups[0]["params"]):
        slots = [state.optimizer.state.get(p[i], {}) for state, p in zip(states, own, strict=True)]
        if slots[0]:
            optimizer.state[stacked] = {
                name: torch.stack([each[name] for each in slots])
                if is_stacked(name, slot)
                else slot
                for name, slot in slots[0].items()
            }
    view_slots(optimizer, states)


def view_slots(optimizer: Optimizer, states: Sequence[TrainingState]) -> None:
    """Make each seed's slots views into the stacked ones."""
    for j, state in enumerate(states):
        own = state.optimizer.param_groups[0]["params"]
        for weight, stacked in zip(own, optimizer.param_groups[0]["params"], strict=True):
            if stacked in optimizer.state:
                state.optimizer.state[weight] = {
                    name: slot[j] if is_stacked(name, slot) else slot
                    for name, slot in optimizer.state[stacked].items()
                }
