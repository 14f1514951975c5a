"""Compute a run's id from its config: equal configs are the same run, on any machine."""

import hashlib
import inspect
import json
from functools import cache
from typing import Any

from seqbench.runs.code_hash import user_code_hash

# Node -> keys that do not count for a run's identity: they only say where and how fast it runs, how
# often it logs and where it writes. The node "" is the top level.
OUTSIDE: dict[str, frozenset[str]] = {
    "": frozenset({"device", "threads", "data_dir", "output_dir", "recipe", "tracker"}),
    "trainer": frozenset({"log_every", "checkpoint_every", "deterministic", "compile", "graph"}),
}


def run_id(config: dict[str, Any]) -> str:
    """Return 12 hex digits that name a config: of the SHA-256 of what can change its result."""
    what = plain_numbers(what_matters(config))
    text = json.dumps(what, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def plain_numbers(value: Any) -> Any:
    """Return the value with whole floats as ints: `1.0` and `1` name the same run."""
    if isinstance(value, dict):
        return {key: plain_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def without_place(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config without the keys in `OUTSIDE`: equal for equal runs."""
    return {
        key: {k: v for k, v in value.items() if k not in OUTSIDE.get(key, ())}
        if isinstance(value, dict)
        else value
        for key, value in config.items()
        if key not in OUTSIDE[""]
    }


def what_matters(config: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a config that can change the result, with hashes of custom code.

    An option with its default value in the signature of its `_target_` is left out. So an option
    that is added later, with the old behavior as its default, does not change old ids.
    """
    kept: dict[str, Any] = {}
    for key, value in config.items():
        if key in OUTSIDE[""]:
            continue
        if isinstance(value, dict) and "_target_" in value:
            defaults = signature_defaults(value["_target_"])
            outside = OUTSIDE.get(key, frozenset())
            value = {
                name: option
                for name, option in value.items()
                if name not in outside and not (name in defaults and defaults[name] == option)
            }
            # The hash identifies a text; its path does not matter.
            if value.get("sha256"):
                value.pop("path", None)
        kept[key] = value
    for key, code in user_code_hashes(config).items():
        kept[key]["_code_"] = code
    return kept


def user_code_hashes(config: dict[str, Any]) -> dict[str, str]:
    """Return a dict from config node to the hash of the custom code that it builds."""
    targets = {
        key: node["_target_"]
        for key, node in config.items()
        if key not in OUTSIDE[""] and isinstance(node, dict) and "_target_" in node
    }
    return {key: code for key, target in targets.items() if (code := user_code_hash(target))}


@cache
def signature_defaults(target: str) -> dict[str, Any]:
    """Return the defaults of the parameters of the class or function that `target` names."""
    from hydra.utils import get_object  # here, because listing runs must not wait for Hydra

    parameters = inspect.signature(get_object(target)).parameters.values()
    # A config has lists where Python has tuples.
    return {
        p.name: list(p.default) if isinstance(p.default, tuple) else p.default
        for p in parameters
        if p.default is not p.empty
    }
