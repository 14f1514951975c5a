"""Checkpoints: everything a run needs to go on as if it had never stopped.

One safetensors file holds the tensors, and in its header the rest as JSON with a digest of both, so
that a torn or rotten file is known as such. Nothing is ever unpickled.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from seqbench.errors import RunError
from seqbench.out_of_memory import is_out_of_memory
from seqbench.runs import atomic

LAST, PREVIOUS, BEST = "last.safetensors", "previous.safetensors", "best.safetensors"

Loaded = tuple[dict[str, Tensor], dict[str, Any]]


def save(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write tensors and facts atomically: the file is whole, or the one before is still there.

    Args:
        path: the file.
        tensors: by name.
        facts: anything that JSON can say.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(facts)
    header = {"facts": text, "digest": digest(contiguous, text)}
    atomic.write(path, to_bytes(contiguous, metadata=header))


def keep_previous(folder: Path) -> None:
    """Set the last checkpoint aside, until the next one has proven itself by being loaded."""
    last = folder / LAST
    if last.exists():
        last.replace(folder / PREVIOUS)


def load_last(folder: Path) -> tuple[Loaded | None, str | None]:
    """The newest checkpoint of a run that is whole, and a remark if it is not the last one.

    Raises:
        RunError: there are checkpoints, and none is whole.
    """
    failures: list[str] = []
    for path in (folder / LAST, folder / PREVIOUS):
        if path.exists():
            try:
                loaded = load(path)
            except RunError as error:
                failures.append(str(error))
                continue
            if not failures:
                return loaded, None
            # Else the rotten one would be set aside in the place of the good one.
            path.replace(folder / LAST)
            return loaded, f"{failures[0]}: going on from the one before"
    if failures:
        raise RunError(f"{failures[-1]}; --force starts the run again")
    return None, None


def load(path: Path) -> Loaded:
    """Read tensors and facts back, onto the CPU.

    Raises:
        RunError: the file is torn or rotten.
    """
    try:
        if path.is_fifo():
            raise OSError("a pipe, and no file")  # it would be waited for
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            # Cloned into memory that torch aligns: on some processors the last bits of a product of
            # matrices hang on where these lie.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        facts = dict(json.loads(header["facts"]))
        whole = header["digest"] == digest(tensors, header["facts"])
    except (
        KeyError,
        MemoryError,
        OSError,
        RuntimeError,
        SafetensorError,
        TypeError,
        ValueError,
    ) as error:
        # An intact file that does not fit into memory is not damaged. A MemoryError, though, may
        # come from a damaged header.
        if isinstance(error, RuntimeError) and is_out_of_memory(error):
            raise
        raise RunError(f"checkpoint {path} cannot be read: {error}") from error
    if not whole:
        raise RunError(f"checkpoint {path} is damaged: its checksum does not match")
    return tensors, facts


def digest(tensors: dict[str, Tensor], facts: str) -> str:
    """SHA-256 over names, shapes and bytes of CPU tensors, and over the facts."""
    result = hashlib.sha256(facts.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        result.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        result.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return result.hexdigest()
