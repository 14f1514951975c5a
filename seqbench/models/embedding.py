"""Build a model's input layer, and tie its weights to the output layer's."""

from torch import nn

from seqbench.errors import ConfigError
from seqbench.spec import Features, SequenceSpec


def input_layer(spec: SequenceSpec, dim: int, bias: bool = False) -> nn.Linear | nn.Embedding:
    """Return an embedding for tokens, or a linear layer for real features.

    Args:
        spec: the problem's spec.
        dim: width of the result.
        bias: the linear layer has a bias.

    Returns:
        A module that maps `(batch, time)` int64, or `(batch, time, features)` float, to
        `(batch, time, dim)`.
    """
    if isinstance(spec.input, Features):
        return nn.Linear(spec.input.dim, dim, bias=bias)
    return nn.Embedding(spec.input.vocab_size, dim)


def tie(output: nn.Linear, embedding: nn.Module | None) -> None:
    """Make the embedding share the output layer's weight.

    Raises:
        ConfigError: if there is no embedding, or the two weights differ in shape.
    """
    if not isinstance(embedding, nn.Embedding):
        raise ConfigError("model.tied needs a task whose input is tokens")
    if output.weight.shape != embedding.weight.shape:
        raise ConfigError(
            f"model.tied needs an output layer {tuple(output.weight.shape)} of the same shape as "
            f"the embedding {tuple(embedding.weight.shape)}"
        )
    # Keep the output layer's initial weight: with the embedding's N(0, 1), logits start too large.
    embedding.weight = output.weight
