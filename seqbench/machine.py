"""Set up this process for a run, and describe the machine for its record."""

import ctypes
import os
import platform
import random
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch

import seqbench
from seqbench.config import Config
from seqbench.errors import ConfigError
from seqbench.kernels import torch_private

PROC = Path("/proc/self")
# Settings of glibc's allocator, as malloc.h numbers them.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
M_TRIM_THRESHOLD_DEFAULT, M_MMAP_MAX_DEFAULT = 128 * 1024, 65536
CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def settings_restored() -> Iterator[None]:
    """Restore what `prepare` and `seed_everything` change in this process, at the end."""
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    backend = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32
    flushes = flushes_denormals()
    cublas = os.environ.get(CUBLAS)
    numpy_state, python_state = np.random.get_state(), random.getstate()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        torch.set_num_threads(threads)
        torch_private.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = backend
        torch.set_flush_denormal(flushes)
        if cublas is None:
            os.environ.pop(CUBLAS, None)
        with suppress(AttributeError):
            set_allocator(M_MMAP_MAX_DEFAULT, M_TRIM_THRESHOLD_DEFAULT)


def flushes_denormals() -> bool:
    """Return True if this thread's arithmetic replaces denormal numbers by zero."""
    return (torch.tensor(1e-40) * 0.5).item() == 0


def prepare(config: Config) -> torch.device:
    """Set up this process for a config, and return the device that the config runs on.

    Raises:
        ConfigError: if the device does not exist.
    """
    # Gradients of a long recurrence vanish into denormal numbers, which a CPU multiplies about a
    # hundred times slower; flushing them to zero does no harm.
    torch.set_flush_denormal(True)
    keep_memory()
    torch.set_num_threads(config["threads"] or available_threads())
    deterministic = config["trainer"]["deterministic"]
    torch_private.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32; bf16 is the fast option
    # Deterministic GEMMs on CUDA need it, and cuBLAS reads it only once, at the first GEMM.
    os.environ.setdefault(CUBLAS, ":4096:8")
    name = config["device"]
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device={name}, but torch sees {torch.cuda.device_count()} CUDA devices here"
        )
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)  # streams and graphs use the current device
    return device


def keep_memory() -> None:
    """Make glibc keep freed memory in this process; do nothing with another C library.

    By default glibc returns large blocks to the system at once. A training step asks for blocks of
    the same sizes as the step before, and would wait until each of their pages is mapped and
    cleared again: half of an LSTM's time at T=600.
    """
    with suppress(AttributeError):  # other C libraries have no mallopt
        set_allocator(0, 2**31 - 1)


def set_allocator(mmap_max: int, trim_threshold: int) -> None:
    """Set how many blocks glibc maps one by one, and the free bytes above which it returns some.

    Raises:
        AttributeError: if the C library is another.
    """
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_MAX, mmap_max)
    libc.mallopt(M_TRIM_THRESHOLD, trim_threshold)


def available_threads() -> int:
    """Return the number of CPU threads to use: OMP_NUM_THREADS, else the number of cores."""
    if (asked := os.environ.get("OMP_NUM_THREADS", "")).isdigit() and int(asked):
        return int(asked)
    return available_cores()


def available_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cuda_devices() -> list[str]:
    """Return the GPUs that this process may use, each as CUDA_VISIBLE_DEVICES names it."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()  # asks the driver, without occupying a GPU
    names = named.split(",") if named else [str(i) for i in range(count)]
    return names[:count]


def seed_everything(seed: int) -> None:
    """Seed every global generator. They serve weights and dropout; data has its own generators."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def host() -> str:
    """Return this machine's name."""
    return platform.node()


def versions() -> dict[str, str]:
    """Return the versions of the software that can change a result."""
    return {
        "seqbench": seqbench.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def device_name(device: torch.device) -> str:
    """Return the name of a GPU, or `cpu (<architecture>)`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({platform.machine()})"


def reset_peak_memory(device: torch.device) -> None:
    """Reset the peak that `peak_memory` returns to the memory in use now.

    On a CPU, first return to the system the freed memory that `keep_memory` kept. Only Linux can
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
    """Return the peak memory since `reset_peak_memory`, in bytes.

    On a GPU: the bytes of this process's tensors. On a CPU: the resident memory of this process; if
    the system is not Linux, since the start of the process.
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
    """Return the commit of seqbench's checkout, with `+` if it was changed; `None` if unknown."""
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
