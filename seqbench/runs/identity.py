"""Which run is this? The same configuration is the same run, whoever launches it and wherever."""

import hashlib
import inspect
import json
from functools import cache
from typing import Any

from seqbench.runs.code_hash import own_code

# Where a run happens, how often it speaks and where it writes cannot change its result.
OUTSIDE: dict[str, frozenset[str]] = {
    "": frozenset({"device", "threads", "data_dir", "output_dir", "recipe", "tracker"}),
    "trainer": frozenset({"log_every", "checkpoint_every", "deterministic", "compile", "graph"}),
}


def run_id(config: dict[str, Any]) -> str:
    """12 hex digits that name a configuration: SHA-256 over what can change its result."""
    what = plain_numbers(what_matters(config))
    text = json.dumps(what, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def plain_numbers(value: Any) -> Any:
    """The same value, with 1.0 written as 1: whichever a person typed, the run is the same."""
    if isinstance(value, dict):
        return {key: plain_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def without_place(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration without where it runs and how it logs: equal for equal runs."""
    return {
        key: {k: v for k, v in value.items() if k not in OUTSIDE.get(key, ())}
        if isinstance(value, dict)
        else value
        for key, value in config.items()
        if key not in OUTSIDE[""]
    }


def what_matters(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a configuration that can change the result.

    An option that still has its default in the signature of what it configures is left out: so an
    option added later, with the old behaviour as its default, leaves old ids as they are.
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
            # A text is what it says, wherever it lies.
            if value.get("sha256"):
                value.pop("path", None)
        kept[key] = value
    for key, code in own_codes(config).items():
        kept[key]["_code_"] = code
    return kept


def own_codes(config: dict[str, Any]) -> dict[str, str]:
    """Return node of a configuration -> hash of the user's own code that it builds."""
    targets = {
        key: node["_target_"]
        for key, node in config.items()
        if key not in OUTSIDE[""] and isinstance(node, dict) and "_target_" in node
    }
    return {key: code for key, target in targets.items() if (code := own_code(target))}


@cache
def signature_defaults(target: str) -> dict[str, Any]:
    """Defaults of the parameters of the class or function that `target` names."""
    from hydra.utils import get_object  # here, because listing runs must not wait for Hydra

    parameters = inspect.signature(get_object(target)).parameters.values()
    # A configuration has lists where Python has tuples.
    return {
        p.name: list(p.default) if isinstance(p.default, tuple) else p.default
        for p in parameters
        if p.default is not p.empty
    }
