"""Run the forward pass of a model on a batch, with the state that the model carries."""

import torch
from torch import Tensor

from seqbench.errors import ConfigError
from seqbench.models.sequence_model import SequenceModel
from seqbench.spec import SequenceSpec
from seqbench.tasks.task import Batch
from seqbench.training.carried import Carried, detached


def predict(
    model: SequenceModel, batch: Batch, carried: Carried, spec: SequenceSpec
) -> tuple[Tensor, Batch, Carried]:
    """Run the forward pass of a model on a batch.

    Args:
        model: the model, or a compiled form of it.
        batch: on the model's device.
        carried: the state after the previous segment, or `None`.
        spec: the task's spec.

    Returns:
        The outputs; the batch with the targets that match them, without the context if the model
        skips it or has a carried state; and the detached state to carry, or `None`.

    Raises:
        ConfigError: if the outputs do not have the shape that the task requires.
    """
    context = batch.context if model.skips_context and spec.readout == "every" else 0
    if carried is not None:
        batch = batch.without_context()
    if batch.lengths is None:
        outputs, state = model(batch.inputs, carried, context)
    elif model.takes_lengths:
        outputs, state = model(batch.inputs, carried, context, batch.lengths)
    else:
        outputs, state = by_length(model, batch.inputs, batch.lengths), None
    check_outputs(outputs, batch.inputs[:, context:], spec)
    if context:
        batch = batch.answered_after_context()
    carries = model.carry_state and batch.lengths is None
    return outputs, batch, detached(state) if carries else None


def by_length(model: SequenceModel, inputs: Tensor, lengths: Tensor) -> Tensor:
    """Return the outputs for sequences of different length, read one length after the other.

    Args:
        model: with readout `last`.
        inputs: `(batch, time)` or `(batch, time, dim)`, padded on the right.
        lengths: `(batch,)`.
    """
    rows = [(lengths == length).nonzero()[:, 0] for length in lengths.unique()]
    parts = [model(inputs[own, : int(lengths[own[0]])])[0] for own in rows]
    return torch.cat(parts)[torch.cat(rows).argsort()]


def check_outputs(outputs: Tensor, inputs: Tensor, spec: SequenceSpec) -> None:
    """Raise `ConfigError` if outputs do not have the shape that the spec requires."""
    size, time = inputs.shape[:2]
    expected = (size, spec.output_dim) if spec.readout != "every" else (size, time, spec.output_dim)
    if outputs.shape != expected:
        # Broadcasting in the loss could turn a wrong shape into a wrong number.
        raise ConfigError(f"the model returns shape {tuple(outputs.shape)}, expected {expected}")
