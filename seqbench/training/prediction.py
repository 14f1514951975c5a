"""A model's answer to a batch, with the state that it carries."""

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
        The outputs, the batch that they answer (without the context that a state made needless),
        and the state to carry on, cut off from the graph that made it.

    Raises:
        ConfigError: the outputs are not of the shape that the task asks for.
    """
    state = None
    if not hasattr(model, "carry_state"):
        outputs = model(batch.inputs)
    else:
        if carried is not None:
            batch = batch.without_context()
        outputs, state = model(batch.inputs, carried)
        state = detached(state) if model.carry_state else None
    check_outputs(outputs, batch, spec)
    return outputs, batch, state


def check_outputs(outputs: Tensor, batch: Batch, spec: SequenceSpec) -> None:
    """Raise `ConfigError` if the outputs are not of the shape that the task asks for."""
    size, time = batch.inputs.shape[:2]
    asked = (size, spec.output_dim) if spec.readout == "last" else (size, time, spec.output_dim)
    if outputs.shape != asked:
        # Else broadcasting would make a number of it, and not the one that is meant.
        raise ConfigError(f"the model answers {tuple(outputs.shape)} where {asked} is asked for")
