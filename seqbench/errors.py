"""The ways a command can end other than well. Each kind carries its exit code; the text is one line
that says what is wrong and, where it is known, what to do.
"""


class SeqbenchError(Exception):
    """Something went wrong that a person can act on; exit code 1."""

    exit_code = 1


class ConfigError(SeqbenchError):
    """The command or the configuration is wrong; exit code 2."""

    exit_code = 2


class DataError(SeqbenchError):
    """Data cannot be had, or is not what it should be; exit code 3."""

    exit_code = 3


class RunError(SeqbenchError):
    """A run failed, diverged, is held by another process, or cannot be written; exit code 1."""


class Held(RunError):
    """Another process is training the run: it will be there when that one is done."""
