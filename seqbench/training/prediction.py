"""Run the forward pass of a model on a batch, with the state that the model carries."""

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
    outputs, state = model(batch.inputs, carried, context)
    check_outputs(outputs, batch.inputs[:, context:], spec)
    if context:
        batch = batch.answered_after_context()
    return outputs, batch, detached(state) if model.carry_state else None


def check_outputs(outputs: Tensor, inputs: Tensor, spec: SequenceSpec) -> None:
    """Raise `ConfigError` if outputs do not have the shape that the spec requires."""
    size, time = inputs.shape[:2]
    expected = (size, spec.output_dim) if spec.readout == "last" else (size, time, spec.output_dim)
    if outputs.shape != expected:
        # Broadcasting in the loss could turn a wrong shape into a wrong number.
        raise ConfigError(f"the model returns shape {tuple(outputs.shape)}, expected {expected}")
