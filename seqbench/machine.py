"""The machine: how this process is set up for a run, and what a record says of where it ran."""

import ctypes
import os
import platform
import random
import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

import seqbench
from seqbench.configuration import Config
from seqbench.errors import ConfigError
from seqbench.kernels import torch_private

PROC = Path("/proc/self")
# Settings of glibc's allocator, as malloc.h numbers them.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def prepare(config: Config) -> torch.device:
    """Set this process up for a configuration, and say which device it runs on.

    Raises:
        ConfigError: the device is not there.
    """
    # Gradients of a long recurrence vanish into denormal numbers, which a CPU multiplies about a
    # hundred times slower; nobody misses them.
    torch.set_flush_denormal(True)
    keep_memory()
    torch.set_num_threads(config["threads"] or available_threads())
    deterministic = config["trainer"]["deterministic"]
    torch_private.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32; who wants speed takes bf16
    # Asked for by deterministic products on CUDA, but read once, at the process's first product.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    name = config["device"]
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device={name}, but torch sees {torch.cuda.device_count()} CUDA devices here"
        )
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)  # streams and graphs are of the current device
    return device


def keep_memory() -> None:
    """Keep the memory that this process frees, where its C library is glibc.

    By itself that gives large blocks back to the system at once, and a training step, which asks
    for blocks of the same sizes as the step before, then waits for each of their pages to be mapped
    and cleared again: half of an LSTM's time at T=600.
    """
    with suppress(AttributeError):  # other C libraries have other ways
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def available_threads() -> int:
    """CPU threads that this process may use: as the environment says, else as many as cores."""
    if (asked := os.environ.get("OMP_NUM_THREADS", "")).isdigit() and int(asked):
        return int(asked)
    return available_cores()


def available_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cuda_devices() -> list[str]:
    """The GPUs that this process may use, each as CUDA_VISIBLE_DEVICES names it."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()  # asks the driver, and holds no GPU
    names = named.split(",") if named else [str(i) for i in range(count)]
    return names[:count]


def seed_everything(seed: int) -> None:
    """Seed every global generator; for weights and dropout, never for data."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def host() -> str:
    """This machine's name."""
    return platform.node()


def versions() -> dict[str, str]:
    """Of what can change a result."""
    return {
        "seqbench": seqbench.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def device_name(device: torch.device) -> str:
    """A device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({platform.machine()})"


def reset_peak_memory(device: torch.device) -> None:
    """Reset the peak that `peak_memory` returns to what is held now.

    On a CPU, first return to the system what `keep_memory` kept of freed memory. Only Linux can
    reset the peak of a process; elsewhere it stays.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(AttributeError):  # glibc only, as keep_memory
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):
        (PROC / "clear_refs").write_text("5", encoding="ascii")  # see proc(5)


def peak_memory(device: torch.device) -> int:
    """Return the most bytes held since `reset_peak_memory`.

    On a GPU: the bytes of this process's tensors. On a CPU: the resident memory of this process,
    since its start where the system is not Linux.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError):
        for line in (PROC / "status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def git_commit() -> str | None:
    """The commit of the checkout that seqbench runs from, with `+` if it was changed; else None."""
    checkout = Path(seqbench.__file__).parents[1]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=checkout, capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
