"""Save and restore the state of training, so that a resumed run continues bit for bit."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from typeguard import TypeCheckError, check_type

from seqbench.config.check import MAX_THREADS
from seqbench.errors import RunError, is_out_of_memory
from seqbench.models.sequence_model import SequenceModel
from seqbench.training import checkpoint
from seqbench.training.carried import Carried, flatten, unflatten
from seqbench.training.schedules import Schedule
from seqbench.training.stored import Kind, packed, unpacked


@dataclass
class Progress:
    """The counters and the best score of a run.

    Attributes:
        step: optimizer steps done.
        best: best validation score so far, or the last test score with `trainer.watch=test`.
        best_step: the step of `best`.
        seconds: time spent in training, over all restarts.
        tokens: time steps that the model read in training, over all sequences.
        solved: the last evaluation reached the score at which the task is solved.
        unimproved: evaluations since the best one.
    """

    step: int = 0
    best: float | None = None
    best_step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    solved: bool = False
    unimproved: int = 0


@dataclass
class TrainingState:
    """The objects that training changes.

    Attributes:
        model: has the weights.
        optimizer: has the slots, and the learning rates that the schedule scales.
        schedule: may adapt to the validation score.
        scaler: the loss scale of fp16; disabled otherwise.
        progress: counters and the best score so far.
        carried: the model's state after the last segment; `None` if it carries none.
    """

    model: SequenceModel
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    scaler: torch.amp.GradScaler
    progress: Progress = field(default_factory=Progress)
    carried: Carried = None

    @contextmanager
    def as_stored(self, kind: Kind | None) -> Iterator[dict[str, Tensor]]:
        """Yield the weights as they are stored; meanwhile the model has them as they are loaded.

        Args:
            kind: see `packed`; `None`: they are stored as they are.
        """
        exact = weights(self.model)
        stored = exact if kind is None else packed(self.model, exact, kind)
        if kind in (None, "fp32"):
            yield stored
            return
        exact = {name: tensor.detach().clone() for name, tensor in exact.items()}
        load_weights(self.model, stored)
        try:
            yield stored
        finally:
            load_weights(self.model, exact)

    def save(self, path: Path, events_offset: int) -> None:
        """Write a checkpoint.

        Args:
            path: the file.
            events_offset: bytes of the event log up to this state.
        """
        slots, optimizer_facts = optimizer_state(self.optimizer)
        random_tensors, random_facts = random_state(next(self.model.parameters()).device)
        facts = {
            "progress": vars(self.progress),
            "optimizer": optimizer_facts,
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": random_facts,
            "events_offset": events_offset,
            "threads": torch.get_num_threads(),
        }
        carried = flatten(self.carried, "carried")
        tensors = weights(self.model) | slots | random_tensors | carried
        checkpoint.save(path, tensors, facts)

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> int:
        """Restore a state from a checkpoint that `save` wrote.

        Also restores the global random generators and the number of threads.

        Args:
            tensors: the checkpoint's tensors, on the CPU.
            facts: the checkpoint's facts.

        Returns:
            Bytes of the event log up to the restored state.

        Raises:
            RunError: if the checkpoint does not match the model, the optimizer or the schedule.
        """
        load_weights(self.model, tensors)
        device = next(self.model.parameters()).device
        carried = {k: v.to(device) for k, v in tensors.items() if k.startswith("carried")}
        self.carried = unflatten(carried, "carried")
        try:
            load_optimizer_state(self.optimizer, tensors, facts["optimizer"])
            self.schedule.load_state_dict(facts["schedule"])
            self.scaler.load_state_dict(facts["scaler"])
            load_random_state(tensors, facts["random"], device)
            self.progress = read_progress(facts)
            if not 1 <= facts["threads"] <= MAX_THREADS:
                raise ValueError(f"{facts['threads']} threads")
            # The last bits of gradients depend on the number of threads.
            torch.set_num_threads(facts["threads"])
            return int(facts["events_offset"])
        except (
            AttributeError,
            LookupError,
            OverflowError,
            RuntimeError,
            TypeCheckError,
            TypeError,
            ValueError,
        ) as error:
            if is_out_of_memory(error):
                raise
            raise RunError(
                f"the checkpoint does not match this training: {type(error).__name__}: {error}; "
                "--force starts the run again"
            ) from error


def read_progress(facts: dict[str, Any]) -> Progress:
    """Return the progress in a checkpoint's facts.

    Raises:
        LookupError, TypeCheckError, TypeError: if it is not as `TrainingState.save` writes it.
    """
    progress = Progress(**facts["progress"])
    for part in fields(Progress):
        check_type(getattr(progress, part.name), part.type)
    return progress


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return an optimizer's state as named tensors and JSON-serializable facts."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, dict[str, Any]] = {}
    for index, slots in state["state"].items():
        for name, value in slots.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{name}"] = value
            else:
                scalars.setdefault(str(index), {})[name] = value
    groups = [
        # `graph.rates_to_device` makes the learning rate a tensor.
        {
            name: value.item() if isinstance(value, Tensor) else value
            for name, value in group.items()
        }
        for group in state["param_groups"]
    ]
    return tensors, {"groups": groups, "scalars": scalars}


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], facts: dict[str, Any]
) -> None:
    """Restore an optimizer from the result of `optimizer_state`."""
    slots: dict[int, dict[str, Any]] = {int(k): dict(v) for k, v in facts["scalars"].items()}
    for key, tensor in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            slots.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": slots, "param_groups": facts["groups"]})


def random_state(device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the state of the global random generators: torch's, numpy's and Python's."""
    tensors = {"random.cpu": torch.get_rng_state()}
    if device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(device)
    kind, keys, position, has_gauss, cached = np.random.get_state()
    version, words, gauss = random.getstate()
    facts = {
        "numpy": [kind, np.asarray(keys).tolist(), position, has_gauss, cached],
        "python": [version, list(words), gauss],
    }
    return tensors, facts


def load_random_state(
    tensors: dict[str, Tensor], facts: dict[str, Any], device: torch.device
) -> None:
    """Restore the global random generators from the result of `random_state`."""
    torch.set_rng_state(tensors["random.cpu"])
    if "random.cuda" in tensors and device.type == "cuda":
        torch.cuda.set_rng_state(tensors["random.cuda"], device)
    kind, keys, position, has_gauss, cached = facts["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    version, words, gauss = facts["python"]
    random.setstate((version, tuple(words), gauss))


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's parameters and buffers by name, shared ones once: safetensors needs that."""
    seen: dict[int, str] = {}
    kept: dict[str, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if seen.setdefault(id(tensor), name) == name:
            kept[f"model.{name}"] = tensor
    return kept


def load_weights(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Load the weights of a checkpoint, saved by `weights`, into a model.

    Raises:
        RunError: if the names or shapes of the weights are not those of the model, or the parts of
            a weight do not fit together.
    """
    tensors = unpacked(tensors)
    state = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    expected = {k.removeprefix("model."): v.shape for k, v in weights(model).items()}
    found = {name: tensor.shape for name, tensor in state.items()}
    if found != expected:
        differing = sorted(dict(found.items() ^ expected.items()))
        raise RunError(f"the checkpoint does not match this model: {', '.join(differing[:3])} ...")
    model.load_state_dict(state, strict=False)
