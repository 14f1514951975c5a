"""Several seeds of one configuration, trained as one batched model.

Models as small as these leave most of a GPU idle: it spends a step on starting kernels. With the
weights of several seeds stacked, `(seeds, ...)`, one kernel does the work of all: products become
batched products, convolutions grouped ones (but for the compiled layers of a CPU, which take one
seed after the other). Nothing else is shared. Each seed has its own initial weights and its own
order of the data, its gradient is clipped by its own norm, and an optimizer that treats each weight
by itself does not notice the others. A seed's weights and slots are views into the stacks, so that
it is evaluated and saved as if it were alone, and can go on so. What a model keeps in plain
attributes, not in buffers, is not of one seed, and is lost.

Dropout is drawn anew for each seed, but from one generator: only without it is a seed's result
that of its own run, up to rounding.
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

from seqbench.errors import ConfigError, RunError
from seqbench.out_of_memory import is_out_of_memory
from seqbench.tasks.task import Batch
from seqbench.training.carried import Carried
from seqbench.training.prediction import check_outputs
from seqbench.training.schedules import Plateau, set_rates
from seqbench.training.state import TrainingState
from seqbench.training.trainer import (
    Diverged,
    Interrupted,
    Step,
    StepResult,
    Trainer,
    Training,
    train_step,
)

# Attention has no batched kernel on a CPU: torch loops over the seeds, and says so.
warnings.filterwarnings("ignore", "There is a performance drop")

ELEMENTWISE = (Adagrad, Adam, AdamW, RMSprop, SGD)


class Stack(nn.Module):
    """The models of several seeds as one.

    Args:
        states: of the seeds, all of one configuration. From here on their models' weights and
            buffers are views into this one's.
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
        # What a call needs besides weights: a model of the same form, whose own take no memory. In
        # a list, since a module's modules are trained.
        self.form = [deepcopy(models[0]).to("meta").train()]

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs `(seeds, batch, ...)` of inputs `(seeds, batch, time, ...)`."""

        def one(weights: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
            outputs = functional_call(self.form[0], (weights, buffers), (x,))
            return outputs[0] if isinstance(outputs, tuple) else outputs

        weights = dict(zip(self.names, self.weights, strict=True))
        return vmap(one, randomness="different")(weights, self.stacked_buffers, inputs)


def check(trainer: Trainer, training: TrainingState, inputs: Tensor) -> None:
    """Raise `ConfigError` if seeds of such a training cannot be trained together.

    Args:
        trainer: of all of them.
        training: of one of them.
        inputs: a batch of it.
    """
    instead = "a sweep over seed=0,1,2 trains them side by side"
    for key, value in {
        "trainer.accumulate": trainer.accumulate > 1,
        "trainer.compile": trainer.compile,
        "trainer.stop_when_solved": trainer.stop_when_solved,
        "trainer.precision=fp16": trainer.precision == "fp16",
        "schedule=plateau": isinstance(training.schedule, Plateau),
        "a model that carries state": getattr(training.model, "carry_state", False),
        f"optimizer {type(training.optimizer).__name__}": type(training.optimizer)
        not in ELEMENTWISE,
    }.items():
        if value:
            raise ConfigError(f"seeds= does not go together with {key}: {instead}")
    alone = deepcopy(training)
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
            reason = f"{type(error).__name__}: {error}".split("\n")[0].split(". ")[0]
            raise ConfigError(f"{what}: {reason}") from error


def fit(
    trainer: Trainer,
    trainings: Sequence[Training],
    optimizer_of: Callable[[list[nn.Parameter]], Optimizer],
    interrupted: Callable[[], int],
    wrap: Callable[[Optimizer, Step], Step] = lambda optimizer, step: step,
) -> list[RunError | None]:
    """Train all seeds to the last step, as `Trainer.fit` does with one.

    Args:
        trainer: of all of them.
        trainings: one for each seed, all at the same step; their states change in place.
        optimizer_of: builds the optimizer of the stacked weights.
        interrupted: returns the number of the signal that asks the runs to stop, or 0.
        wrap: replaces the training step, given its optimizer, by one with the same results.

    Returns:
        What ended each seed early: `Diverged`, which does not end the others, or `Interrupted`,
        after a checkpoint was written; `None` if nothing did.
    """
    states = [training.state for training in trainings]
    first, total = trainings[0], trainer.total_steps(trainings[0].task)
    model = Stack(states)
    parameters = [weight for weight in model.weights if weight.requires_grad]
    optimizer = optimizer_of(parameters)
    take_slots(optimizer, states)
    optimizers = [optimizer, *(state.optimizer for state in states)]
    for mine, its in zip(optimizer.param_groups, states[0].optimizer.param_groups, strict=True):
        mine["initial_lr"] = its["initial_lr"]
    ends: list[RunError | None] = [None] * len(trainings)
    before, started = [state.progress.seconds for state in states], time.perf_counter()

    def seconds(i: int) -> float:
        """Return a seed's share of the time; the shares add up to all of it."""
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
        # Without their history, which a capture cannot keep.
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
            give_slots(optimizer, states)
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
    """Scale each seed's gradient down to a norm of `most`; the norms before, `(seeds,)`."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    each = torch.stack([torch.linalg.vector_norm(g.reshape(len(g), -1), dim=1) for g in gradients])
    norms = torch.linalg.vector_norm(each, dim=0)
    scale = (most / (norms + 1e-6)).clamp(max=1.0)
    for g in gradients:
        g *= scale.view(-1, *[1] * (g.dim() - 1))
    return norms


def is_stacked(name: str, slot: object) -> bool:
    """Whether an optimizer's slot has a value for each weight; else it counts steps."""
    return isinstance(slot, Tensor) and name != "step"


def take_slots(optimizer: Optimizer, states: Sequence[TrainingState]) -> None:
    """Go on from the seeds' slots, if they have some, and let them be views into the stacks."""
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
    give_slots(optimizer, states)


def give_slots(optimizer: Optimizer, states: Sequence[TrainingState]) -> None:
    """Let each seed's slots be views into the stacked ones."""
    for j, state in enumerate(states):
        own = state.optimizer.param_groups[0]["params"]
        for weight, stacked in zip(own, optimizer.param_groups[0]["params"], strict=True):
            if stacked in optimizer.state:
                state.optimizer.state[weight] = {
                    name: slot[j] if is_stacked(name, slot) else slot
                    for name, slot in optimizer.state[stacked].items()
                }
