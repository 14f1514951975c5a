"""Run the forward pass of a model on a batch, with the state that the model carries.

A model is called as `model(inputs)`. Two attributes change that:
- `carry_state`: called as `model(inputs, state)`, returns `(outputs, state)`. If the attribute is
  True, the state is carried to the next segment; if it is False, each segment starts with `None`.
- `skips_context`, if True, on tasks with readout `every`: called as `model(inputs, context)` if the
  batch has a context, the number of leading steps that repeat the previous segment. The outputs
  leave these steps out.
"""

from torch import Tensor, nn

from seqbench.errors import ConfigError
from seqbench.spec import SequenceSpec
from seqbench.tasks.task import Batch
from seqbench.training.carried import Carried, detached


def predict(
    model: nn.Module, batch: Batch, carried: Carried, spec: SequenceSpec
) -> tuple[Tensor, Batch, Carried]:
    """Run the forward pass of a model on a batch.

    Args:
        model: see the module's docstring for how it is called.
        batch: on the model's device.
        carried: the state after the previous segment, or `None`.
        spec: the task's spec.

    Returns:
        The outputs; the batch with the targets that match them, without the context if the model
        skips it or has a carried state; and the detached state to carry, or `None`.

    Raises:
        ConfigError: if the outputs do not have the shape that the task requires.
    """
    state, skipped = None, 0
    skips = getattr(model, "skips_context", False) and spec.readout == "every"
    if skips and batch.context:
        skipped = batch.context
        outputs = model(batch.inputs, skipped)
        batch = batch.answered_after_context()
    elif not hasattr(model, "carry_state"):
        outputs = model(batch.inputs)
    else:
        if carried is not None:
            batch = batch.without_context()
        outputs, state = model(batch.inputs, carried)
        state = detached(state) if model.carry_state else None
    check_outputs(outputs, batch.inputs[:, skipped:], spec)
    return outputs, batch, state


def check_outputs(outputs: Tensor, inputs: Tensor, spec: SequenceSpec) -> None:
    """Raise `ConfigError` if outputs do not have the shape that the spec requires."""
    size, time = inputs.shape[:2]
    asked = (size, spec.output_dim) if spec.readout == "last" else (size, time, spec.output_dim)
    if outputs.shape != asked:
        # Broadcasting in the loss could turn a wrong shape into a wrong number.
        raise ConfigError(f"the model answers {tuple(outputs.shape)} where {asked} is asked for")
