"""Provide layers of sequence models for CPUs: compiled where supported, plain PyTorch elsewhere.

See README.md in this folder. This package imports nothing else of seqbench.
"""

from seqbench.kernels.build import available, recording, unavailable_reason
from seqbench.kernels.ops import (
    attention,
    disabled,
    linear,
    recurrent,
    residual_blocks,
    rms_norm,
    swiglu,
)
from seqbench.kernels.reference import BlockShape, BlockWeights, RecurrentKind
from seqbench.kernels.torch_private import weight_norm

__all__ = [
    "BlockShape",
    "BlockWeights",
    "RecurrentKind",
    "attention",
    "available",
    "disabled",
    "linear",
    "recording",
    "recurrent",
    "residual_blocks",
    "rms_norm",
    "swiglu",
    "unavailable_reason",
    "weight_norm",
]
