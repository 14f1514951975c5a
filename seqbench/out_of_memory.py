"""Recognize out-of-memory errors of any device."""

import torch

# Texts of torch's RuntimeErrors for a failed allocation.
NO_MEMORY = ("DefaultCPUAllocator: ", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if the error is a failed allocation, on any device.

    Only torch's CUDA allocator raises OutOfMemoryError. Its CPU allocator, the CUDA driver and
    cuBLAS raise RuntimeErrors that differ from others only in their text.
    """
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in NO_MEMORY)
