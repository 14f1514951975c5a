"""Define torch's custom operators: schemas, fake implementations, gradients and `vmap` rules."""

from seqbench.kernels.operators.attention import attention
from seqbench.kernels.operators.pointwise import linear, rms_norm, swiglu
from seqbench.kernels.operators.recurrent import recurrent
from seqbench.kernels.operators.residual_blocks import residual_blocks

__all__ = ["attention", "linear", "recurrent", "residual_blocks", "rms_norm", "swiglu"]
