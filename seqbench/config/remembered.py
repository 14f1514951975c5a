"""Remember the custom code that a user types, so that the user's own runs need no `--trust`.

A run folder names code and may be foreign, so `trust` builds only code of seqbench and code that
the user names. `compose` appends each node that names custom code, with a digest of its values and
of that code, to a file of the user outside of run folders. A run folder with other values, other
code or the same code in another place is still refused.
"""

import hashlib
import json
import os
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from seqbench.config import Config
from seqbench.runs.code_hash import import_hash
from seqbench.runs.identity import plain_numbers

# One entry per node and code: its `targets`, its `digest`, and the `config_dir` that it came from.
Entry = dict[str, Any]


def memory() -> Path | None:
    """Return the file of the entries; `None` for a user without a home folder."""
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    with suppress(RuntimeError):
        if not state.is_absolute():
            state = Path.home() / ".local" / "state"
        return state / "seqbench" / "typed_code.jsonl"
    return None


def remember(config: Config, config_dir: str | None) -> None:
    """Remember the custom code of a config; a folder that cannot be written is not an error.

    Args:
        config: composed from what the user typed, and checked.
        config_dir: the folder of the user's choices.
    """
    folder = None if config_dir is None else str(Path(config_dir).absolute())
    for node in config.values():
        if custom_targets(node):
            _append(memory(), _text(node), folder)


def is_remembered(node: Any) -> bool:
    """Return True if the user has typed this node, and its code is as it was; import nothing."""
    targets = custom_targets(node)
    known = [entry for entry in _entries() if targets and entry["targets"] == targets]
    return bool(known) and _digest(_text(node)) in [entry["digest"] for entry in known]


def config_dir_of(group: str, name: str, target: str) -> str | None:
    """Return the user's folder that has a choice with a custom target; `None` if it is unknown."""
    folders = [entry["config_dir"] for entry in _entries() if target in entry["targets"]]
    known = (folder for folder in reversed(folders) if folder)
    return next((f for f in known if (Path(f) / group / f"{name}.yaml").is_file()), None)


def custom_targets(value: Any) -> list[str]:
    """Return the targets inside a value that belong neither to seqbench nor to torch."""
    if isinstance(value, list):
        return [target for item in value for target in custom_targets(item)]
    if not isinstance(value, dict):
        return []
    own = value.get("_target_")
    found = [target for item in value.values() for target in custom_targets(item)]
    if isinstance(own, str) and own.partition(".")[0] not in ("seqbench", "torch"):
        found.insert(0, own)
    return found


def _text(node: Any) -> str:
    return json.dumps(plain_numbers(node), sort_keys=True)


def _digest(text: str) -> str | None:
    """Return the digest of a node, as JSON, and of its code; `None` if a source is not found."""
    from seqbench.config.schema import import_from  # here, since reading runs needs no Hydra

    import_from("")
    hashes = [import_hash(target) for target in custom_targets(json.loads(text))]
    known = [code for code in hashes if code is not None]
    if len(known) < len(hashes):
        return None
    return hashlib.sha256("\n".join([text, *known]).encode()).hexdigest()


@cache
def _append(file: Path | None, text: str, config_dir: str | None) -> None:
    targets, digest = custom_targets(json.loads(text)), _digest(text)
    entry = {"targets": targets, "digest": digest, "config_dir": config_dir}
    if file is None or digest is None or entry in _entries():
        return
    with suppress(OSError):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(entry) + "\n")


def _entries() -> tuple[Entry, ...]:
    """Return the entries, the oldest first; damaged lines are left out."""
    file = memory()
    with suppress(OSError):
        if file is not None:
            facts = file.stat()
            return _read(file, facts.st_mtime_ns, facts.st_size)
    return ()


@lru_cache(maxsize=4)
def _read(file: Path, modified: int, size: int) -> tuple[Entry, ...]:
    entries = []
    for line in file.read_bytes().splitlines():
        with suppress(ValueError, TypeError, KeyError):
            entry = json.loads(line)
            entries.append({key: entry[key] for key in ("targets", "digest", "config_dir")})
    return tuple(entries)
