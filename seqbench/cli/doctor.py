"""`seqbench doctor`: report versions, hardware and data, and print warnings."""

import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Annotated

import typer

from seqbench.cli.data import DataDir

# The packages that affect results most.
CORE = ("seqbench", "torch", "numpy", "hydra-core", "omegaconf", "safetensors")
# Substrings of the names of network file systems.
REMOTE = ("nfs", "cifs", "smb", "sshfs", "lustre", "beegfs", "gpfs", "ceph")
FEW_BYTES = 2**30

Lines = dict[str, str]


def doctor(
    data_dir: DataDir = None,
    output_dir: Annotated[Path, typer.Option(help="Output folder of new runs.")] = Path("outputs"),
) -> None:
    """Report this machine's versions, hardware, data and problems.

    Shows the output folder, and the device and number of workers of a run or sweep. Warns of
    conditions that slow runs down or make them fail.

    Example: seqbench doctor
    """
    from rich.console import Console
    from rich.text import Text

    from seqbench.cli.rich_tables import print_sections

    console, progress = Console(highlight=False), Console(stderr=True, highlight=False)
    with progress.status("checking this machine") as status:

        def say(text: str) -> None:
            status.update(text)
            if not progress.is_terminal:
                progress.print(Text(text), soft_wrap=True)

        reason = compile_kernels(say)
        say("measuring matrix products")
        sections = {
            "versions": versions(),
            "extras": extras(),
            "machine": machine(reason),
            "data": data(data_dir),
            "runs": runs(output_dir),
        }
    found = list(warnings(output_dir, reason)) or ["none"]
    print_sections(console, {**sections, "warnings": {"": "\n".join(found)}})


def versions() -> Lines:
    """Return the versions of Python and of the core packages."""
    return {"python": platform.python_version()} | {name: version(name) for name in CORE}


def extras() -> Lines:
    """Return `installed` for each extra, or its missing packages and the command to install it."""
    from packaging.requirements import Requirement

    missing: dict[str, list[str]] = {}
    for requirement in map(Requirement, requires("seqbench") or []):
        marker = requirement.marker
        if marker is None or marker.evaluate({"extra": ""}) or requirement.name == "seqbench":
            continue
        for extra in (word.strip(" '\"") for word in str(marker).split("extra ==")[1:]):
            absent = missing.setdefault(extra, [])
            if not is_installed(requirement.name):
                absent.append(requirement.name)
    missing.pop("dev", None)
    return {
        extra: f"{', '.join(absent)} missing: pip install 'seqbench[{extra}]'"
        if absent
        else "installed"
        for extra, absent in sorted(missing.items())
    }


def is_installed(distribution: str) -> bool:
    """Return True if a distribution is installed."""
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def compile_kernels(say: Callable[[str], None]) -> str | None:
    """Compile the kernels that are not in the cache.

    Args:
        say: function that displays a progress message.

    Returns:
        The error if a kernel cannot be compiled; `None` if all can.
    """
    from seqbench.kernels.build import FLOAT32_SOURCES, unavailable_reason

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting = [pool.submit(unavailable_reason, [source]) for source in FLOAT32_SOURCES]
        what = "compiling the kernels (up to a minute on first use)"
        say(f"{what}: 0 of {len(waiting)}")
        for done, _ in enumerate(as_completed(waiting), start=1):
            say(f"{what}: {done} of {len(waiting)}")
    return next((reason for source in waiting if (reason := source.result())), None)


def machine(reason: str | None) -> Lines:
    """Return the processor, memory and GPUs, and the devices that `train` and `sweep` use.

    Args:
        reason: error if a kernel cannot be compiled; `None` if all can.
    """
    import torch

    from seqbench.machine import available_cores, available_threads, cuda_devices

    cores, gpus = available_cores(), cuda_devices()
    lines = {
        "processor": f"{cores} cores of {os.cpu_count()}, {platform.machine()}",
        "vector instructions": torch.backends.cpu.get_cpu_capability(),
        "memory": f"{free_memory() / 2**30:.1f} GiB free" if free_memory() else "unknown",
    }
    for i, name in enumerate(gpus):
        found = torch.cuda.get_device_properties(i)
        lines[f"GPU {name}"] = f"{found.name}, {found.total_memory / 2**30:.0f} GiB"
    if not gpus:
        lines["GPU"] = "none that PyTorch can use"
    threads = available_threads()
    on_cpu = f"the CPU, {threads} thread{'s' * (threads > 1)}"
    where = "the first GPU" if gpus else on_cpu
    places = f"{len(gpus)}, one per GPU" if gpus else f"{cores}, one thread each"
    lines["kernels"] = "compile" if reason is None else "do not compile: see the warnings below"
    lines["precision"] = precision()
    return lines | {
        "seqbench train": f"runs on {where}",
        "seqbench sweep": f"parallel runs: {places}",
    }


def precision() -> str:
    """Measure the speed of matrix products in bf16 relative to fp32, and return it as text."""
    import torch

    from seqbench.bench.flops import peak_rates

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ratio = peak_rates(device, "bf16").flops / peak_rates(device, "fp32").flops
    found = f"matrix products are {ratio:.2g} times as fast in bf16 as in fp32"
    if device.type == "cpu":
        found += "; recurrent layers always compute in fp32"
    return found


def free_memory() -> int:
    """Return the available memory in bytes; 0 if unknown (no /proc/meminfo)."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    found = dict(line.split(":", 1) for line in lines)
    return int(found.get("MemAvailable", "0 kB").split()[0]) * 1024


def data(data_dir: str | None) -> Lines:
    """Return the data folder and, for each dataset, its state and the command to fetch it.

    Only file sizes are compared, not hashes.
    """
    from seqbench.datasets.catalog import DATASETS
    from seqbench.datasets.download import data_folder

    folder = data_folder(data_dir)
    lines = {"folder": str(folder)}
    for name, dataset in DATASETS.items():
        sizes = {file: size_of(folder / dataset.folder / file.name) for file in dataset.files}
        if all(size == file.size for file, size in sizes.items()):
            lines[name] = "found"
        else:
            how = "missing" if not any(sizes.values()) else "incomplete"
            lines[name] = f"{how}: seqbench data fetch {name}"
    return lines


def size_of(path: Path) -> int:
    """Return the size of a file in bytes; 0 if it does not exist."""
    return path.stat().st_size if path.is_file() else 0


def runs(output_dir: Path) -> Lines:
    """Return the folder of runs, the number of runs, and the free disk space."""
    from seqbench.runs.find import run_folders

    found = sum(1 for _ in run_folders(output_dir / "runs"))
    free = shutil.disk_usage(existing(output_dir)).free
    return {
        "folder": f"{(output_dir / 'runs').absolute()} ({found:,} run{'s' * (found != 1)})",
        "disk": f"{free / 2**30:.1f} GiB free",
    }


def existing(path: Path) -> Path:
    """Return the path if it exists, otherwise its nearest existing parent."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def warnings(output_dir: Path, reason: str | None) -> Iterator[str]:
    """Yield a warning for each condition that slows runs down or makes them fail.

    Args:
        output_dir: output folder of new runs.
        reason: error if a kernel cannot be compiled; `None` if all can.
    """
    from seqbench.machine import available_cores, available_threads, cuda_devices

    cores = available_cores()
    if not cuda_devices():
        yield "no GPU: budget=full takes hours, budget=quick takes minutes"
    if reason:
        yield (
            f"the kernels do not compile ({reason}), so models on the CPU run in plain PyTorch, "
            "a GRU several times slower: install a C++ compiler, or set CXX to its command"
        )
    if available_threads() > cores:
        yield (
            f"OMP_NUM_THREADS={available_threads()} exceeds the number of cores, {cores}: "
            f"threads wait for each other; set it to {cores} or less"
        )
    if (load := os.getloadavg()[0]) > cores / 2:
        yield (
            f"other programs put a load of {load:.1f} on {cores} cores and slow down training "
            "with several threads: set threads=1"
        )
    if (quota := cpu_quota()) is not None and quota < cores:
        yield (
            f"the CPU quota of this container is {quota:.1f} cores, but {cores} are visible: "
            f"set threads and launch.workers to {max(1, int(quota))}"
        )
    place = existing(output_dir)
    if shutil.disk_usage(place).free < FEW_BYTES:
        yield (
            f"less than 1 GiB is free in {place}, and runs fail on a full disk: delete files, "
            "or choose another folder with output_dir="
        )
    if not os.access(place, os.W_OK):
        yield f"{place} is not writable: choose another folder with output_dir="
    kind = file_system(place)
    if any(name in kind for name in REMOTE):
        yield (
            f"{place} is on a network file system ({kind}): checkpoints take longer, and a run "
            "stays locked for two minutes if its machine crashes"
        )


def cpu_quota() -> float | None:
    """Return the container's CPU quota in cores (cgroup v2); `None` if there is no limit."""
    try:
        most, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return None
    return None if most == "max" else int(most) / int(period)


def file_system(path: Path) -> str:
    """Return the type of the file system that contains a path; empty if unknown."""
    try:
        mounts = os.fsdecode(Path("/proc/mounts").read_bytes()).splitlines()
    except OSError:
        return ""
    # /proc/mounts escapes white space in a path: "/my disk" is written as `/my\040disk`.
    kinds = {unescaped(line.split()[1]): line.split()[2] for line in mounts}
    return next((kinds[str(p)] for p in (path, *path.parents) if str(p) in kinds), "")


def unescaped(text: str) -> str:
    """Return a path from /proc/mounts with its octal escapes decoded."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
