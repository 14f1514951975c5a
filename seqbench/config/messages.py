"""Word the errors of a wrong config: one line, with the nearest valid name."""

from collections.abc import Iterable

from seqbench.errors import ConfigError
from seqbench.wording import plain, suggestion

# Names that other libraries have for a key.
SYNONYMS = dict.fromkeys(
    ("seq_len", "lookback", "look_back", "input_size", "input_chunk_length", "context_length"),
    "length",
) | dict.fromkeys(
    ("pred_len", "h", "prediction_length", "output_chunk_length", "forecast_horizon"), "horizon"
)


def unknown_key_error(key: str, known: Iterable[str], prefix: str = "") -> ConfigError:
    """Return the error for an unknown key, with the nearest known key."""
    known = list(known)
    hint = suggestion(SYNONYMS[key] if SYNONYMS.get(key) in known else key, known, prefix)
    return ConfigError(f"no key '{prefix}{plain(key)}'{hint}")


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or its type if there is no message."""
    return str(error).strip().split("\n")[0] or type(error).__name__
