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
