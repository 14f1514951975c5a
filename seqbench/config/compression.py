"""Validate the node `compress` of a config, and format it as a label.

A compressed run has its parent's config, `init_from` and this node. The node prunes (`weights` or
`units`: the fraction that is removed), quantizes (`quantize`: the format of the stored weights), or
both. The trainer's steps are those of fine-tuning; 0: none.
"""

from seqbench.config import Config
from seqbench.config.messages import unknown_key_error
from seqbench.errors import ConfigError

QUANTIZED = ("fp32", "fp16", "bf16", "int8-weights")
SCOPES = ("global", "layer")
SHARES = ("weights", "units")
# Groups of settings that may differ from those of the parent.
CHANGEABLE = ("optimizer.", "schedule.", "trainer.")
KEYS = (*SHARES, "scope", "quantize")


def check_compression(config: Config) -> None:
    """Raise `ConfigError` if the node `compress` of a config is malformed, or lacks `init_from`."""
    node = config.get("compress")
    if node is None:
        return
    if "init_sha256" not in config:
        raise ConfigError("compress needs init_from=RUN: 'seqbench compress RUN' sets both")
    if not isinstance(node, dict):
        raise ConfigError(f"compress must be a group of values, not {node!r}")
    for key in node:
        if key not in KEYS:
            raise unknown_key_error(str(key), KEYS, "compress.")
    shares = [key for key in SHARES if key in node]
    if len(shares) > 1 or not (shares or "quantize" in node):
        raise ConfigError("compress takes one of weights and units, or quantize, or both")
    for key in shares:
        check_share(f"compress.{key}", node[key])
    for key, known in (("scope", SCOPES), ("quantize", QUANTIZED)):
        if key in node and node[key] not in known:
            raise ConfigError(
                f"compress.{key} must be one of {', '.join(known)}, not {node[key]!r}"
            )
    if "scope" in node and "weights" not in node:
        raise ConfigError("compress.scope is for compress.weights")


def check_share(name: str, share: object) -> None:
    """Raise `ConfigError` if a pruning fraction is not in [0, 1)."""
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
        raise ConfigError(f"{name} must be in [0, 1), such as 0.5 for a half, not {share!r}")


def method(config: Config) -> str | None:
    """Return a label of the compression, `units 25 % + 500 steps`; `None` for any other run.

    The config may come from an untrusted folder, so types are checked.
    """
    node = config.get("compress")
    if not isinstance(node, dict):
        return None
    parts = []
    for key in SHARES:
        if isinstance(share := node.get(key), int | float):
            parts.append(f"{key} {100 * share:.4g} %")
    if node.get("scope", SCOPES[0]) != SCOPES[0]:
        parts[-1:] = [f"{part} per layer" for part in parts[-1:]]
    if isinstance(kind := node.get("quantize"), str):
        parts.append(kind)
    trainer = config.get("trainer")
    steps = trainer.get("steps") if isinstance(trainer, dict) else None
    tuned = f" + {steps:,} steps" if isinstance(steps, int) and steps else ""
    return f"{', '.join(parts)}{tuned}"
