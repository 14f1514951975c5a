"""Compute a run's id from its config: equal configs are the same run, on any machine."""

import hashlib
import json
import re
from typing import Any

from seqbench.runs.code_hash import user_code_hash
from seqbench.runs.defaults import defaults_for_ids
from seqbench.runs.source_defaults import source_defaults

# A run's id.
RUN_ID = re.compile(r"[0-9a-f]{12}")
# Node -> keys that do not count for a run's identity: they only say where and how fast it runs, how
# often it logs and where it writes. The node "" is the top level.
IGNORED_KEYS: dict[str, frozenset[str]] = {
    "": frozenset({"device", "threads", "data_dir", "output_dir", "recipe", "tracker"}),
    "trainer": frozenset({"log_every", "checkpoint_every", "deterministic", "compile", "graph"}),
}

# Option of a task that names a file of the user's -> option that holds the file's SHA-256.
FILES = {"path": "sha256", "test_path": "test_sha256"}
DIGESTS = tuple(f"task.{digest}" for digest in FILES.values())


def run_id(config: dict[str, Any]) -> str:
    """Return 12 hex digits that name a config: of the SHA-256 of what can change its result."""
    kept = plain_numbers(result_config(config))
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def plain_numbers(value: Any) -> Any:
    """Return the value with whole floats as ints: `1.0` and `1` name the same run."""
    if isinstance(value, dict):
        return {key: plain_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def without_environment(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config without the keys in `IGNORED_KEYS`: equal for equal runs.

    Options of seqbench that the config leaves out are at their defaults. A record lacks options
    that were added later.
    """
    return {
        key: {k: v for k, v in completed(value).items() if k not in IGNORED_KEYS.get(key, ())}
        if isinstance(value, dict)
        else value
        for key, value in config.items()
        if key not in IGNORED_KEYS[""]
    }


def completed(node: dict[str, Any]) -> dict[str, Any]:
    """Return a config node with the options that it leaves out, at their defaults."""
    return source_defaults(str(node.get("_target_"))) | node


def result_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a config that can change the result, with hashes of custom code.

    An option at its default is left out (see `defaults_for_ids`). So an option that is added later,
    with the old behavior as its default, does not change old ids.
    """
    kept: dict[str, Any] = {}
    for key, value in config.items():
        if key in IGNORED_KEYS[""]:
            continue
        if isinstance(value, dict) and "_target_" in value:
            defaults = defaults_for_ids(value["_target_"])
            ignored = IGNORED_KEYS.get(key, frozenset())
            value = {
                name: option
                for name, option in value.items()
                if name not in ignored and not (name in defaults and defaults[name] == option)
            }
            # The hash identifies a file; its path does not matter.
            for path, digest in FILES.items():
                if value.get(digest):
                    value.pop(path, None)
        kept[key] = value
    for key, code in user_code_hashes(config).items():
        kept[key]["_code_"] = code
    if "init_sha256" in kept:  # it identifies the weights; their run and path do not matter
        kept = {k: v for k, v in kept.items() if k not in ("init_from", "init_run")}
    return kept


def user_code_hashes(config: dict[str, Any]) -> dict[str, str]:
    """Return a dict from config node to the hash of the custom code that it builds."""
    targets = {
        key: node["_target_"]
        for key, node in config.items()
        if key not in IGNORED_KEYS[""] and isinstance(node, dict) and "_target_" in node
    }
    return {key: code for key, target in targets.items() if (code := user_code_hash(target))}
