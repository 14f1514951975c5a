"""Write and read checkpoints.

A checkpoint is one safetensors file. It holds the tensors, and in its header the facts as JSON and
a digest of both, by which damaged files are detected. Nothing is unpickled.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from seqbench.errors import RunError, is_out_of_memory
from seqbench.runs import atomic
from seqbench.runs.run import BEST as BEST
from seqbench.runs.run import LAST as LAST
from seqbench.runs.run import PREVIOUS as PREVIOUS

Loaded = tuple[dict[str, Tensor], dict[str, Any]]


def save(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write tensors and facts atomically: an interrupted write leaves the old file in place.

    Args:
        path: the file.
        tensors: name -> tensor, on any device.
        facts: JSON-serializable values.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(facts)
    header = {"facts": text, "digest": digest(contiguous, text)}
    atomic.write(path, to_bytes(contiguous, metadata=header))


def keep_previous(folder: Path) -> None:
    """Rename the last checkpoint to the previous one, the fallback if the next is damaged."""
    last = folder / LAST
    if last.exists():
        last.replace(folder / PREVIOUS)


def load_last(folder: Path) -> tuple[Loaded | None, str | None]:
    """Load the last checkpoint of a run, or the previous one if the last is missing or damaged.

    Returns:
        The checkpoint, or `None`; and a remark for the user, `None` if no file was
        damaged.

    Raises:
        RunError: if there are checkpoints, all damaged.
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
            # Replace the damaged file, or `keep_previous` would replace the intact one by it.
            path.replace(folder / LAST)
            return loaded, f"{failures[0]}: going on from the one before"
    if failures:
        raise RunError(f"{failures[-1]}; --force starts the run again")
    return None, None


def load(path: Path) -> Loaded:
    """Read tensors, onto the CPU, and facts.

    Raises:
        RunError: if the file cannot be read or is damaged.
    """
    try:
        if path.is_fifo():
            raise OSError("a pipe, and no file")  # opening it would block
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            # Clone into memory that torch aligns: on some CPUs the last bits of a GEMM depend on
            # the alignment of its operands.
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
        # An intact file that does not fit into memory is not damaged. But a MemoryError may come
        # from a damaged header.
        if isinstance(error, RuntimeError) and is_out_of_memory(error):
            raise
        raise RunError(f"checkpoint {path} cannot be read: {error}") from error
    if not whole:
        raise RunError(f"checkpoint {path} is damaged: its checksum does not match")
    return tensors, facts


def digest(tensors: dict[str, Tensor], facts: str) -> str:
    """Return the SHA-256 of facts and of the names, shapes, dtypes and bytes of CPU tensors."""
    result = hashlib.sha256(facts.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        result.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        result.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return result.hexdigest()
