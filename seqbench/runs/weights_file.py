"""Read what seqbench writes about a model beside its weights."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from seqbench.errors import ConfigError


def read_facts(path: Path) -> dict[str, Any]:
    """Return the facts in the header of a safetensors file, with the node `preprocessing`.

    Returns:
        See `training.checkpoint`; an empty dict for a file that seqbench did not write.

    Raises:
        ConfigError: if the file cannot be read, is damaged or of another kind.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get("facts")
        if text is None:
            return {}
        facts = json.loads(text)
        if not isinstance(facts, dict):
            raise TypeError("its facts are no JSON object")
        return facts | {"preprocessing": dict(facts.get("preprocessing") or {})}
    # A header of deeply nested JSON costs a RecursionError.
    except (OSError, RecursionError, SafetensorError, TypeError, ValueError) as error:
        raise not_weights(path, error) from error


def not_weights(path: Path, error: Exception) -> ConfigError:
    """Return the error of a file that cannot be read as weights."""
    return ConfigError(f"{path} is not a file of weights: {error}")
