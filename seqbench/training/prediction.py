"""A model's answer to a batch, with the state that it carries.

A model is called with the inputs. One with an attribute `carry_state` is called with a state, too,
and returns the next beside its answer; if the attribute is true, the state goes on from segment to
segment. One with a true attribute `skips_context` is called with the number of leading steps that
only repeat what was scored before, and does not answer at these.
"""

from torch import Tensor, nn

from seqbench.errors import ConfigError
from seqbench.spec import SequenceSpec
from seqbench.tasks.task import Batch
from seqbench.training.carried import Carried, detached


def predict(
    model: nn.Module, batch: Batch, carried: Carried, spec: SequenceSpec
) -> tuple[Tensor, Batch, Carried]:
    """Run a model over a batch, with its state of the segment before if it carries one.

    Returns:
        The outputs, the batch that they answer (without the context that a state made needless,
        or its targets), and the state to carry on, cut off from the graph that made it.

    Raises:
        ConfigError: the outputs are not of the shape that the task asks for.
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
    """Raise `ConfigError` if outputs are not of the shape that is asked for at these inputs."""
    size, time = inputs.shape[:2]
    asked = (size, spec.output_dim) if spec.readout == "last" else (size, time, spec.output_dim)
    if outputs.shape != asked:
        # Else broadcasting would make a number of it, and not the one that is meant.
        raise ConfigError(f"the model answers {tuple(outputs.shape)} where {asked} is asked for")
