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
SYNONYMS |= dict.fromkeys(("pooling", "readout", "aggregation"), "pool")
SYNONYMS |= dict.fromkeys(("class_weights", "weight"), "class_weight")
SYNONYMS |= dict.fromkeys(("target", "label_column", "target_column", "class_column"), "label")
SYNONYMS |= dict.fromkeys(("val_size", "validation_split", "val_fraction"), "valid_size")
SYNONYMS |= dict.fromkeys(("test_fraction", "test_split"), "test_size")
SYNONYMS |= dict.fromkeys(("test_file", "path_test"), "test_path")
SYNONYMS |= dict.fromkeys(("sampling_rate", "sample_rate", "sr"), "rate")
SYNONYMS |= {"dataset_name": "dataset"}


def unknown_key_error(key: str, known: Iterable[str], prefix: str = "") -> ConfigError:
    """Return the error for an unknown key, with the nearest known key."""
    known = list(known)
    hint = suggestion(SYNONYMS[key] if SYNONYMS.get(key) in known else key, known, prefix)
    return ConfigError(f"no key '{prefix}{plain(key)}'{hint}")
