"""How a model's first layer reads its input, and how its last one may share weights with it."""

from torch import nn

from seqbench.errors import ConfigError
from seqbench.spec import Features, SequenceSpec


def input_layer(spec: SequenceSpec, dim: int) -> nn.Linear | nn.Embedding:
    """An embedding for tokens, a linear map without bias for real features.

    Args:
        spec: the form of the problem.
        dim: width of the result.

    Returns:
        A module from `(batch, time)` int64, or `(batch, time, features)` float, to
        `(batch, time, dim)`.
    """
    if isinstance(spec.input, Features):
        return nn.Linear(spec.input.dim, dim, bias=False)
    return nn.Embedding(spec.input.vocab_size, dim)


def tie(output: nn.Linear, embedding: nn.Module | None) -> None:
    """Let the embedding use the output layer's weights.

    Raises:
        ConfigError: the task has no tokens, or the two layers differ in shape.
    """
    if not isinstance(embedding, nn.Embedding):
        raise ConfigError("model.tied needs a task whose input is tokens")
    if output.weight.shape != embedding.weight.shape:
        raise ConfigError(
            f"model.tied needs an output layer {tuple(output.weight.shape)} of the same shape as "
            f"the embedding {tuple(embedding.weight.shape)}"
        )
    # This way round: torch starts embeddings at N(0, 1), with which first logits are far too large.
    embedding.weight = output.weight
