"""Define the errors that end a command, each with its exit code.

The message of an error is one line: what is wrong and, if known, what to do.
"""


class SeqbenchError(Exception):
    """An error that the user can act on; exit code 1.

    Args:
        message: one line.
        exit_code: instead of that of the class.
    """

    exit_code = 1

    def __init__(self, message: str = "", exit_code: int | None = None) -> None:
        super().__init__(message)
        if exit_code is not None:
            self.exit_code = exit_code


class ConfigError(SeqbenchError):
    """A wrong command or config; exit code 2."""

    exit_code = 2


class DataError(SeqbenchError):
    """Data that cannot be loaded, or is not as expected; exit code 3."""

    exit_code = 3


class RunError(SeqbenchError):
    """A run that failed, diverged, is held elsewhere, or cannot be written; exit code 1."""


class RunLocked(RunError):
    """A run that another process is training; its record exists when that process is done."""


class Diverged(RunError):
    """The loss, the gradient or a score is not finite."""


class Interrupted(RunError):
    """A signal stopped the run.

    Args:
        message: says at which step, and whether a checkpoint was written.
        signal: number of the signal.
        step: the last step that was trained.
    """

    exit_code = 130

    def __init__(self, message: str, signal: int = 0, step: int = 0) -> None:
        super().__init__(message)
        self.signal, self.step = signal, step


# Texts of torch's RuntimeErrors for a failed allocation.
NO_MEMORY = ("DefaultCPUAllocator: ", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if the error is a failed allocation, on any device.

    Only torch's CUDA allocator raises `torch.OutOfMemoryError`. Its CPU allocator, the CUDA driver
    and cuBLAS raise RuntimeErrors that differ from others only in their text.
    """
    if isinstance(error, MemoryError):
        return True
    # By name: this module must not import torch.
    by_torch = type(error).__name__ == "OutOfMemoryError" or any(
        text in str(error) for text in NO_MEMORY
    )
    return isinstance(error, RuntimeError) and by_torch


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or its type if there is no message."""
    return str(error).strip().split("\n")[0] or type(error).__name__


def typed_line(error: BaseException) -> str:
    """Return the type of an exception, and the first line of its message if there is one."""
    name, line = type(error).__name__, first_line(error)
    return name if line == name else f"{name}: {line}"
