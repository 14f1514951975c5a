"""Compile the kernels for this machine's processor, load them, and call them.

A source of `csrc/` is compiled once for each dtype. That takes a C++ compiler (`c++`, or the
command in CXX) and some ten seconds. The library is cached in the user's cache folder under a hash
of the preprocessed source and the command, and so of the compiler and the processor.
"""

import ctypes
import hashlib
import os
import re
import shlex
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from pathlib import Path

import pooch
import torch
from filelock import FileLock
from torch import Tensor

from seqbench.kernels import torch_private

SOURCES = Path(__file__).parent / "csrc"
PATHS = {path.stem: path for path in sorted(SOURCES.glob("*.cpp"))}
# Sources and dtypes that training in float32 needs.
FLOAT32_SOURCES = [(source, torch.float32) for source in PATHS]
# The C++ name of each dtype.
TYPES = {torch.float32: "float", torch.float64: "double", torch.bfloat16: "Bfloat16"}
# Version of the calling convention; increase it together with CONVENTION in arguments.h.
CONVENTION = 1
# No contraction: else sums would depend on the loops in which the compiler chooses to use FMA.
FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off")
LINK_FLAGS = ("-fno-exceptions", "-shared", "-fPIC")
TIMEOUT = 600  # seconds: the machine may be busy


_used: ContextVar[set[str] | None] = ContextVar("used", default=None)


class NotCompiled(Exception):
    """A kernel that cannot be compiled or loaded; the message says why."""


class Arguments:
    """The layout of a struct of arguments, read from the library that declares it.

    Args:
        declaration: fields as C++ declares them, e.g. `int64_t batch, time; const Real *x;`; each
            has 8 bytes.
    """

    def __init__(self, declaration: str) -> None:
        fields = [
            (name, "d" if part.strip().startswith("double") else "q")
            for part in declaration.split(";")
            for name in re.findall(r"(\w+)\s*(?:,|$)", part.strip())
        ]
        self.names = [name for name, _ in fields]
        self.format = struct.Struct("=" + "".join(kind for _, kind in fields))

    def pack(self, values: dict[str, object]) -> bytes:
        """Return the bytes of the struct.

        Args:
            values: field -> a number, a tensor (its address is passed) or `None` (a null pointer);
                fields without a value are 0.

        Raises:
            TypeError: if the struct has no such field.
        """
        if unknown := values.keys() - set(self.names):
            raise TypeError(f"the kernel has no argument {', '.join(sorted(unknown))}")
        given = (values.get(name) for name in self.names)
        return self.format.pack(
            *(v.data_ptr() if isinstance(v, Tensor) else 0 if v is None else v for v in given)
        )


class Library:
    """A source's shared library.

    Args:
        path: the shared library.
        source: name of the source.

    Raises:
        OSError: if the library cannot be loaded, or has another calling convention.
    """

    def __init__(self, path: Path, source: str) -> None:
        self.source = source
        self.functions = ctypes.CDLL(str(path))
        self.functions.convention.restype = ctypes.c_int64
        if (found := self.functions.convention()) != CONVENTION:
            raise OSError(f"{path.name}: expected calling convention {CONVENTION}, got {found}")
        self.vector_bytes = int(self.functions.vector_bytes())
        self.layouts: dict[str, Arguments] = {}

    def layout(self, name: str) -> Arguments:
        """Return the layout of a struct of arguments.

        Raises:
            OSError: if the size of the struct is not the sum of its fields.
        """
        if name not in self.layouts:
            declaration = getattr(self.functions, f"{name}_fields")
            declaration.restype = ctypes.c_char_p
            layout = Arguments(declaration().decode())
            size = int(getattr(self.functions, f"{name}_bytes")())
            if size != layout.format.size:
                raise OSError(f"{name}: expected {layout.format.size} bytes, got {size}")
            self.layouts[name] = layout
        return self.layouts[name]

    def call(self, function: str, arguments: str, **values: object) -> None:
        """Allocate a kernel's workspace and call the kernel.

        Args:
            function: name of the kernel.
            arguments: name of its struct of arguments.
            values: values of the fields, except `threads` and `workspace`; see `Arguments.pack`.

        Raises:
            RuntimeError: if there is no memory for the workspace.
        """
        layout = self.layout(arguments)
        values |= {"threads": torch.get_num_threads()}
        measure = getattr(self.functions, f"{function}_workspace")
        measure.restype = ctypes.c_int64
        workspace = torch.empty(measure(layout.pack(values)), dtype=torch.uint8)
        values |= {"workspace": workspace}
        getattr(self.functions, function)(layout.pack(values))
        if (used := _used.get()) is not None:
            used.add(self.source)


@contextmanager
def recording() -> Iterator[set[str]]:
    """Yield a set that collects the names of the sources whose kernels run inside the context."""
    names: set[str] = set()
    token = _used.set(names)
    try:
        yield names
    finally:
        _used.reset(token)


def unavailable_reason(
    wanted: Sequence[tuple[str, torch.dtype]] = FLOAT32_SOURCES,
) -> str | None:
    """Return the reason why kernels cannot be compiled or loaded; `None` if they can.

    Missing libraries are compiled in parallel, one per core.

    Args:
        wanted: sources and dtypes.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            list(pool.map(library, *zip(*wanted, strict=True)))
        except NotCompiled as error:
            return str(error)
    return None


def available() -> bool:
    """Return True if kernels can be compiled and loaded; compile missing libraries."""
    return unavailable_reason() is None


def library(source: str, dtype: torch.dtype) -> Library:
    """Return a source's library for a dtype; compile it if it is not cached.

    Args:
        source: name of a file in `csrc/`, without its suffix.
        dtype: a key of `TYPES`.

    Raises:
        NotCompiled: if it cannot be compiled or loaded.
    """
    found = compiled(PATHS[source], TYPES[dtype])
    if isinstance(found, NotCompiled):
        raise found
    return found


@torch_private.constant_when_traced
def vector_bytes(source: str) -> int:
    """Return the bytes of a vector that a source was compiled for."""
    return library(source, torch.float32).vector_bytes


def padded(source: str, size: int, dtype: torch.dtype) -> int:
    """Return a size, in values of `dtype`, rounded up to whole vectors of a source's kernels."""
    lanes = vector_bytes(source) // dtype.itemsize
    return (size + lanes - 1) // lanes * lanes


@cache
def compiled(source: Path, real: str) -> Library | NotCompiled:
    """Return the library, or the reason why it is missing.

    Failures are cached, too, because every call of a kernel comes here.

    Args:
        source: path of the source.
        real: C++ name of the dtype.
    """
    reason = NotCompiled("")
    for openmp in (("-fopenmp",), ()):  # not every compiler has OpenMP; without it: one thread
        try:
            return load(source, (*FLAGS, *target_flags(), *openmp, f"-DREAL={real}"))
        except NotCompiled as error:
            reason = error
    return reason


def compiler() -> list[str]:
    """Return the words of the C++ compiler's command."""
    return shlex.split(os.environ.get("CXX") or "c++")


def target_flags() -> tuple[str, ...]:
    """Return the flag for all instructions of this processor; none if CXX names a target."""
    return () if any(word.startswith("-march") for word in compiler()) else ("-march=native",)


def load(source: Path, flags: tuple[str, ...]) -> Library:
    """Load a source's library from the cache; compile it first if it is not there."""
    # The preprocessed text has all macros that the compiler defines for itself and the processor,
    # so that machines that share a home folder get their own libraries. It has no paths (-P), so
    # that all checkouts share a library.
    text = run_compiler(*flags, "-E", "-dD", "-P", str(source))
    key = hashlib.sha256(text + repr((compiler(), flags)).encode()).hexdigest()[:16]
    kept = Path(pooch.os_cache("seqbench")) / "compiled" / f"{source.stem}-{key}.so"
    with suppress(OSError):
        return Library(kept, source.stem)
    with suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(f"{kept.parent}/.", os.W_OK):
        with tempfile.TemporaryDirectory() as folder:
            return compile_to(Path(folder) / kept.name, source, flags)
    try:
        with FileLock(kept.with_suffix(".lock")):  # other processes wait, then load it
            with suppress(OSError):
                return Library(kept, source.stem)
            with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
                made = Path(folder) / kept.name
                found = compile_to(made, source, flags)
                made.replace(kept)
                return found
    except OSError as error:  # e.g. a full disk, or a file system without locks
        raise NotCompiled(str(error)) from error


def compile_to(path: Path, source: Path, flags: tuple[str, ...]) -> Library:
    """Compile a source to a library and load it.

    Raises:
        NotCompiled: if it cannot be compiled or loaded.
    """
    run_compiler(*flags, *LINK_FLAGS, str(source), "-o", str(path))
    try:
        return Library(path, source.stem)
    except OSError as error:
        raise NotCompiled(str(error)) from error


def run_compiler(*arguments: str) -> bytes:
    """Run the compiler and return its output.

    Raises:
        NotCompiled: if it fails or cannot be run.
    """
    command = [*compiler(), *arguments]
    try:
        return subprocess.run(
            command, capture_output=True, check=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL
        ).stdout
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        worst = next((line for line in lines if "error" in line), lines[0])
        raise NotCompiled(f"{command[0]} failed: {worst}") from error
    except (OSError, subprocess.SubprocessError) as error:
        raise NotCompiled(f"{command[0]} did not run: {error}") from error
