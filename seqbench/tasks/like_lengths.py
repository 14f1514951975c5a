"""Make batches of sequences of like length, so that little is padded."""

import torch
from torch import Tensor

from seqbench.tasks.task import generator, shuffled

# Sequences of like length are batched together among those of so many batches.
POOLED = 16


def rows_of_batch(lengths: Tensor, size: int, seed: int, epoch: int, index: int) -> Tensor:
    """Return the rows of a batch of an epoch; each row is in one batch.

    An epoch, in random order, is cut into pools of batches. Within a pool, sequences of like length
    are together. The last batch has those that are left over.

    Args:
        lengths: `(rows,)` int64, the time steps of each sequence, on the CPU.
        size: rows of a batch.
        seed: of the order.
        epoch: from 0.
        index: of the batch within the epoch, from 0.

    Returns:
        `(batch,)` int64.
    """
    order = shuffled(len(lengths), seed, epoch, torch.device("cpu"))
    whole = len(lengths) // size
    if index == whole or bool((lengths == lengths[0]).all()):
        return order[index * size : (index + 1) * size]
    pool, place = divmod(index, POOLED)
    rows = order[pool * POOLED * size : min((pool + 1) * POOLED, whole) * size]
    rows = rows[lengths[rows].argsort(stable=True)]
    batches = torch.randperm(len(rows) // size, generator=generator(seed, epoch, pool))
    return rows.view(-1, size)[batches[place]]
