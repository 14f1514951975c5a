"""Choose the next token from the logits of a language model."""

import torch
from torch import Tensor


def choose(
    logits: Tensor, temperature: float, top_k: int | None, random: torch.Generator
) -> Tensor:
    """Choose an id by the logits.

    Args:
        logits: `(vocabulary,)` in float32, on the CPU; one of -inf is never chosen.
        temperature: divides the logits; 0: the likeliest id is chosen.
        top_k: sample from this many likeliest ids only, with their probabilities relative to each
            other; of equally likely ids the smaller ones are kept. `None`: all ids.
        random: the generator to draw from. Each call draws the same amount, unless the temperature
            is 0.

    Returns:
        The id, `(1,)` int64.
    """
    if temperature == 0:
        return logits.argmax()[None]
    if top_k is not None:
        likeliest = logits.sort(descending=True, stable=True).indices
        logits = logits.index_fill(0, likeliest[top_k:], -torch.inf)
    # A quotient by a tiny temperature overflows, unless the maximum is subtracted.
    scaled = (logits - logits.max()).double() / temperature
    return torch.multinomial(scaled.softmax(0), 1, generator=random)
