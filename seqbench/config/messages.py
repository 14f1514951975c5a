"""Word the errors of a wrong config: one line, with the nearest valid name."""

import difflib
from collections.abc import Iterable

from seqbench.errors import ConfigError
from seqbench.wording import plain


def unknown_key_error(key: str, known: Iterable[str], prefix: str = "") -> ConfigError:
    """Return the error for an unknown key, with the nearest known key."""
    return ConfigError(f"no key '{prefix}{plain(key)}'{suggestion(key, known, prefix)}")


def suggestion(word: str, known: Iterable[str], prefix: str = "") -> str:
    """Return a hint for the end of an error: the nearest known word, or else all known words."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, 1)
    if close:
        return f" (did you mean '{prefix}{close[0]}'?)"
    return f" (there are: {', '.join(known)})" if known else ""


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or its type if there is no message."""
    return str(error).strip().split("\n")[0] or type(error).__name__
